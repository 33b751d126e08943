"""`python -m tests.faults.crashing_node serve ...`: the command line with a crash inside.

The file named by CRASH_PLAN holds the name of a boundary in `node.pipeline`; the process that
passes it removes the file and dies as by kill -9. With "always" behind the name the file stays.
Where POISON_PLAN is named, too, bright FLAIR is oedema and no network is asked (`tests.poison`).
Nothing else differs from ``python -m node``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests import entries


def _crash_at(boundary: str) -> None:
    plan = Path(os.environ["CRASH_PLAN"])
    wanted, _, how = plan.read_text(encoding="utf-8").partition(" ") if plan.exists() else ("",) * 3
    if wanted == boundary:
        if how != "always":
            plan.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if "infer" in sys.argv and "POISON_PLAN" in os.environ:
        from tests import poison

        poison.install()
    entries.serve("tests.faults.crashing_node", _crash_at)
