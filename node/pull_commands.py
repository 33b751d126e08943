"""`neuroseg pull`: one study from an archive, in this process, with what was decided and saved."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from node.pull_orders import PullRow, Tally
    from node.pulling import Pulling, Watcher
    from node.settings import Settings

_MIB: Final = 2**20


def run(settings: Settings, study_instance_uid: str, name: str) -> None:
    """Pull a study and print what was; errors end the command as everywhere.

    Raises
    ------
    click.BadParameter
        It is no UID.
    CodedError
        It could not be pulled, or not now.
    """
    from node import app, logs, peers
    from node.audit import Event, note_command
    from node.pulling import Pulling
    from node.receive.dataset import is_uid

    if not is_uid(study_instance_uid):
        raise click.BadParameter("a Study Instance UID has digits and dots", param_hint="STUDY_UID")
    peers.archive_of(settings.source, settings.destinations, name)
    logs.configure(level="ERROR", role="pull")
    spool, ledger, manifest = app.open_stores(settings)
    executor_id = f"{settings.jobs.worker_name}/pull-{os.getpid()}"
    pulling = Pulling(settings, spool, ledger, manifest, executor_id=executor_id)
    is_done = False
    try:
        row = pulling.orders.claim(study_instance_uid, name, executor_id)
        tally = _run(pulling, row, _watcher(manifest.roles))
        is_done = True
    finally:
        ledger.close()
        target = "pull {study_instance_uid}"
        note_command(settings.spool.path, Event.IMPORTED, target, is_done=is_done)
    _say(tally)


def _run(pulling: Pulling, row: PullRow, watcher: Watcher) -> Tally:
    """Pull, and leave the row as what it came to: also where somebody presses Ctrl-C."""
    from node.door_errors import PullStoppedError

    try:
        return pulling.run(row, watcher)
    except KeyboardInterrupt:
        pulling.end_badly(row, PullStoppedError(), is_final=True)
        raise
    except Exception as error:
        pulling.end_badly(row, error, is_final=True)
        raise


def _watcher(roles: tuple[str, ...]) -> Watcher:
    from node import explain, series_table
    from node.pull import Plan
    from node.pulling import Watcher

    class _Terminal(Watcher):
        """Shows the decision as a table, and a line that moves."""

        def planned(self, plan: Plan) -> None:
            series_table.show(explain.rows_of(plan.cast.decisions, plan.known), roles)

        def progress(self, tally: Tally) -> None:
            if sys.stderr.isatty():
                is_whole = tally.images_here == tally.images_wanted
                line = f"\r{tally.images_here} of {tally.images_wanted} images here"
                click.echo(line, nl=is_whole, err=True)

    return _Terminal()


def _say(tally: Tally) -> None:
    """Print what was fetched, and what that saved."""
    known = tally.images_wanted - tally.images_fetched
    before = f", {known} were here before" if known else ""
    click.echo(
        f"{tally.series_wanted} of {tally.series_count} series, {tally.images_wanted} of "
        f"{tally.image_count} images needed; fetched {tally.images_fetched} images, "
        f"{tally.bytes_fetched / _MIB:.1f} MiB{before}"
    )
    if tally.bytes_left_out:
        left = tally.image_count - tally.images_wanted
        size = tally.bytes_left_out / _MIB
        click.echo(f"left out: {left} images, {size:.1f} MiB of pixels before compression")
    click.echo("The node closes the case as one that was sent: `neuroseg cases`.")
