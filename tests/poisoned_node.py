"""`python -m tests.poisoned_node serve ...`: the command line with a network that some cases spoil.

The file named by POISON_PLAN maps Study Instance UIDs to what happens in each window: ``nan``,
``memory``, ``crash`` or ``slow`` (from when the file named by POISON_GATE exists). For all other
studies bright FLAIR is called oedema and no network is asked. Nothing else differs from
``python -m node``.
"""

from __future__ import annotations

import sys

from tests import entries

if __name__ == "__main__":
    if "infer" in sys.argv:  # no other role loads torch
        from tests import poison

        poison.install()
    entries.serve("tests.poisoned_node")
