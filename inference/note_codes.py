"""The codes of the notes that a result may carry, kept for ever; no torch, so that settings know.

What a note says stands where it is written; this is what a site may name, and hold results for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NOTE_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BRAIN_VOLUME_UNUSUAL": "the images show less or more brain than an adult has",
        "CHANNEL_DOUBTFUL": "the series hardly look like what they were taken for",
        "CHANNEL_FIELD_OF_VIEW": "a series cuts some of the brain off; nothing is found there",
        "INPUT_MISSING": "the model was run without one of its inputs",
        "RESULT_UNCERTAIN": "the model is unsure of much of what it found",
        "TUMOUR_LARGE": "what was found is larger than a tumour usually is",
        "TUMOUR_OUTSIDE_BRAIN": "much of what was found lies outside the brain",
        "TUMOUR_SCATTERED": "what was found lies in many separate pieces",
    }
)
"""Code -> what it means, without the numbers that the note itself has."""
