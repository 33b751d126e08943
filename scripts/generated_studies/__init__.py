"""Generated brain MR studies with tumours: what the demonstration model learns from.

`anatomy` says which tissue lies where, `tumours` grows lesions in it, `imaging` gives it the
brightness of four sequences and the faults of a scanner, and `study` puts that into volumes. All of
it is drawn from a seed; no patient's image is used.
"""

from scripts.generated_studies.study import KINDS, GeneratedStudy, draw_study

VERSION = "1"
"""Another number draws other studies from the same seeds."""

__all__ = ["KINDS", "VERSION", "GeneratedStudy", "draw_study"]
