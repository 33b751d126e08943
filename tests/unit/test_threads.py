"""What the command line sees to before numpy is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_ASKED = """
import node.__main__, sys
assert "numpy" not in sys.modules
import numpy, os
numpy.ones((64, 64)) @ numpy.ones((64, 64))
print(os.environ["OPENBLAS_NUM_THREADS"], len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("said", [None, "2"])
def test_small_products_are_not_shared_among_threads_unless_a_site_says_so(
    said: str | None,
) -> None:
    environment = {key: value for key, value in os.environ.items() if "_NUM_THREADS" not in key}
    if said is not None:
        environment["OPENBLAS_NUM_THREADS"] = said
    done = subprocess.run(
        [sys.executable, "-c", _ASKED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    value, threads = done.stdout.split()
    assert value == (said or "1")
    if said is None:
        assert threads == "1"
