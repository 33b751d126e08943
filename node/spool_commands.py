"""`neuroseg spool`: look at the spool as an operator."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from node.settings import Settings


@click.command()
@click.option("--repair", is_flag=True, help="Do what each finding says; without it only look.")
@click.option("--deep", is_flag=True, help="Compare the digest of every instance: reads them all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.pass_obj
def check(settings: Settings, *, repair: bool, deep: bool, as_json: bool) -> None:
    """Compare the spool with the ledger; the node may be at work meanwhile.

    Ends with 1 where something was found and not repaired.
    """
    from dataclasses import asdict

    from inference import manifest
    from node import app, explain, listing, logs
    from node.receive.reconcile import Reconciliation

    logs.configure(level="CRITICAL", role="spool")
    spool, ledger, _ = app.open_stores(settings)
    findings = Reconciliation(
        spool,
        ledger,
        model_id=manifest.load(settings.model.folder).model_id,
        limit_bytes=settings.receive.max_instance_bytes,
        repairs=repair,
        is_deep=deep,
        is_live=True,
    ).run(explain.progress_line(is_terminal=sys.stderr.isatty()))
    ledger.close()
    if as_json:
        listing.as_json([asdict(one) for one in findings])
    for finding in () if as_json else findings:
        click.echo(f"{finding.path}: {finding.kind.value} {finding.reason}".rstrip())
    if not as_json:
        what = "repaired" if repair else "found; `--repair` does what is said of each"
        click.echo(f"{len(findings)} {what}" if findings else "spool and ledger agree")
    sys.exit(1 if findings and not repair else 0)


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_obj
def backup(settings: Settings, target: Path) -> None:
    """Copy ledger and spool into TARGET, a new folder; the node may be at work meanwhile.

    To go on from it, let `[spool] path` point to the copy and start.
    """
    import sqlite3

    from node.backup import backup
    from node.errors import BackupTargetError

    if settings.ledger.url.get_secret_value():
        raise BackupTargetError(reason="[ledger] url names another database")
    is_terminal = sys.stdout.isatty()

    def _told(count: int) -> None:
        if is_terminal and count % 100 == 0:
            click.echo(f"\r{count} files", nl=False)

    try:
        count = backup(settings.spool.path, target, _told)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BackupTargetError(reason=reason) from error
    start = "\r" if is_terminal else ""
    click.echo(f"{start}{count} files and the ledger are in {target}")


@click.command(name="copy-ledger")
@click.option(
    "--url",
    envvar="NEUROSEG_NEW_LEDGER_URL",
    show_envvar=True,
    required=True,
    help="Where to, such as postgresql://user:password@host/database; rather by the environment.",
)
@click.pass_obj
def copy_ledger(settings: Settings, url: str) -> None:
    """Copy the ledger into an empty database; the node is stopped meanwhile.

    Then set [ledger] url and [jobs] url to the new one and start: cases under way go on.
    """
    from node import database, ledger_copy

    source, target = database.open_engine(settings.ledger_url), database.open_engine(url)

    def _told(table: str, count: int) -> None:
        if count:
            click.echo(f"{table}: {count}")

    patience_s = settings.jobs.heartbeat_timeout_s
    total = ledger_copy.copy(source, target, patience_s=patience_s, told=_told)
    click.echo(f"{total} rows copied")


COMMANDS = (check, backup, copy_ledger)
