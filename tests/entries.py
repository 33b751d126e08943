"""The command line of a node that a test has changed, for the modules that change it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from node import app, logs, settings, supervise
from node.pipeline import Boundary
from tests import warm


def serve(module: str, boundary: Boundary | None = None) -> None:
    """Run a role, or all of them under a supervisor that starts them by the same module."""
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
            entry=(sys.executable, "-m", module),
            launch=warm.fork if warm.is_warm() else supervise.launch,
        )
        supervise.run_until_signal(supervisor)
    elif arguments.role == "work":
        app.run_work(loaded, boundary)
    elif arguments.role == "infer":
        app.run_infer(loaded, boundary)
    else:
        app.RUN_ROLE[arguments.role](loaded)
