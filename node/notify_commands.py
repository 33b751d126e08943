"""`neuroseg notify`: try the channels, and see what was told."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from node.outbox import Told
    from node.settings import Settings


@click.command()
@click.pass_obj
def test(settings: Settings) -> None:
    """Send a test over every channel that is configured, at once and without the node."""
    from node import logs
    from node.errors import NotificationFailedError
    from node.notify import message, notifier

    logs.configure(level="CRITICAL", role="notify")
    channels = notifier.channels_of(settings.notify)
    if not channels:
        click.echo("no channel is configured: give [notify.webhook] url or [notify.email] host")
        sys.exit(2)
    failed = False
    for name, send in channels.items():
        try:
            send(message.test_notice())
            click.echo(f"{name}: taken")
        except NotificationFailedError as error:
            failed = True
            click.echo(f"{name}: {error.code}: {error}\n  -> {error.advice}")
    sys.exit(1 if failed else 0)


@click.command("list")
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_obj
def list_(settings: Settings, limit: int, *, as_json: bool) -> None:
    """List what people were told, and how each channel stands."""
    from dataclasses import asdict

    from node import listing
    from node.outbox import Outbox
    from node.reading import LedgerReader

    ledger = LedgerReader(settings.ledger_url)
    told = Outbox(ledger.engine).recent(limit)
    ledger.close()
    if as_json:
        listing.as_json([asdict(one) for one in told])
        return
    listing.show(("happened", "event", "code", "case", "told"), [_row(one) for one in told])


def _row(one: Told) -> tuple[str, ...]:
    notice = one.notice
    where = f" to {notice.destination}" if notice.destination else ""
    more = f" and {notice.count - 1} more" if notice.count > 1 else ""
    return (
        f"{notice.happened_at:%F %T}",
        f"{notice.event}{where}",
        notice.code or "-",
        f"{notice.case_id or '-'}{more}",
        _standing(one),
    )


def _standing(one: Told) -> str:
    if not one.is_routed:
        return "waits for others of its kind"
    if one.channel is None:
        return "nobody is told"
    if one.sent_at is not None:
        return f"{one.channel}: taken {one.sent_at:%F %T}"
    said = f" ({one.sentence})" if one.sentence else ""
    if one.given_up_at is not None:
        return f"{one.channel}: given up{said}"
    return f"{one.channel}: waits after {one.attempt_count} attempts{said}"


COMMANDS = (test, list_)
