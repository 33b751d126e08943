"""`python tests/faults/crashing_node.py serve ...`: the command line with a crash inside.

The file named by CRASH_PLAN holds the name of a boundary in `node.pipeline`; the process that
passes it removes the file and dies as by kill -9. With "always" behind the name the file stays.
Nothing else differs from ``python -m node``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from node import app, logs, settings, supervise


def _crash_at(boundary: str) -> None:
    plan = Path(os.environ["CRASH_PLAN"])
    wanted, _, how = plan.read_text(encoding="utf-8").partition(" ") if plan.exists() else ("",) * 3
    if wanted == boundary:
        if how != "always":
            plan.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run a role, or all of them under a supervisor."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--role", choices=supervise.ROLES)
    arguments = parser.parse_args()
    loaded = settings.load(arguments.config)
    logs.configure(level=loaded.log_level, role=arguments.role or "supervisor", strict=True)
    supervise.die_with_parent()
    if arguments.role is None:
        supervisor = supervise.Supervisor(
            supervise.ROLES,
            arguments.config,
            longest_delay_s=0.5,  # nine crashes of one role would take minutes otherwise
            entry=(sys.executable, __file__),
        )
        supervise.run_until_signal(supervisor)
    elif arguments.role == "work":
        app.run_work(loaded, _crash_at)
    elif arguments.role == "infer":
        app.run_infer(loaded, _crash_at)
    else:
        app.RUN_ROLE[arguments.role](loaded)


if __name__ == "__main__":
    main()
