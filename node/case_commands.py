"""`neuroseg cases`: list cases, look at one, and act on it as an operator."""

# ruff: noqa: PLC0415 - each command imports what it needs, so that `--help` answers at once

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from converters.volume import Role
    from node.ledger import Ledger
    from node.owed import Standing
    from node.reading import LedgerReader
    from node.rows import AttemptRow, CaseRow
    from node.settings import Settings

_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")


@contextmanager
def reading(settings: Settings) -> Iterator[LedgerReader]:
    """Yield the ledger for looking."""
    from node.reading import LedgerReader

    ledger = LedgerReader(settings.ledger_url)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def writing(settings: Settings) -> Iterator[Ledger]:
    """Yield the ledger for acting; the audit trail says who acted and whether it was done."""
    from node.ledger import Ledger

    ledger = Ledger(settings.ledger_url)
    is_done = False
    try:
        yield ledger
        is_done = True
    finally:
        ledger.close()
        _note(settings, is_done=is_done)


def _note(settings: Settings, *, is_done: bool) -> None:
    from node.audit import Event, note_command

    context = click.get_current_context()
    case_id = str(context.params.get("case_id", ""))
    target = f"cases {context.info_name} {case_id if _ID.fullmatch(case_id) else ''}"
    note_command(settings.spool.path, Event.CHANGED, target, is_done=is_done)


def show_list(settings: Settings, limit: int, *, as_json: bool) -> None:
    """Print the newest cases."""
    from dataclasses import asdict

    from node import listing

    with reading(settings) as ledger:
        rows = ledger.cases(limit=limit)
    if as_json:
        listing.as_json([asdict(row) for row in rows])
        return
    listing.show(
        ("case", "state", "priority", "opened", "what"),
        [
            (row.case_id, row.state.value, row.priority.value, f"{row.opened_at:%F %T}", _what(row))
            for row in rows
        ],
    )


def _what(row: CaseRow) -> str:
    if row.code:
        return f"{row.code}: {row.sentence}"
    volumes = (row.summary or {}).get("volumes_ml", {})
    return ", ".join(f"{label} {volume:.1f} mL" for label, volume in volumes.items()) or row.reason


# -- one case -------------------------------------------------------------------------------------


@click.command()
@click.argument("case_id")
@click.option("--json", "as_json", is_flag=True, help="Print what the API answers.")
@click.pass_obj
def show(settings: Settings, case_id: str, *, as_json: bool) -> None:
    """Show a case: its series with their numbers, what was tried, how it stands and why."""
    if as_json:
        _show_view(settings, case_id)
    else:
        _show_case(settings, case_id)


def _show_view(settings: Settings, case_id: str) -> None:
    from dataclasses import asdict
    from datetime import UTC, datetime

    from inference import manifest as manifests
    from node import listing, model_set
    from node.spool import Spool
    from node.web import views

    with reading(settings) as ledger:
        sources = views.Sources(
            ledger=ledger,
            spool=Spool(settings.spool.path),
            settings=settings,
            manifest=manifests.load(settings.model.folder),
            further=model_set.further(settings),
        )
        view = views.case_view(sources, ledger.case(case_id), now=datetime.now(UTC))
    listing.as_json(asdict(view))


def _show_case(settings: Settings, case_id: str) -> None:
    from node import model_set, owed, series_table

    with reading(settings) as ledger:
        row = ledger.case(case_id)
        decisions, attempts = ledger.decisions(case_id), ledger.attempts(case_id)
        choices, receipts = ledger.choices(case_id), ledger.receipts(case_id)
        series_count, image_count = ledger.received(row.study_instance_uid)
        standings = owed.standings(row, ledger, settings.destinations)
    rows = series_table.numbered(decisions)
    _print_head(row, series_count, image_count)
    if rows:
        series_table.show(rows, model_set.roles(settings))
    numbers = {(one.decision.series_instance_uid, one.decision.part): one.number for one in rows}
    for role, key in choices.items():
        click.echo(f"  chosen by hand: {role} = {numbers.get(key, 'a series that is not here')}")
    for attempt in attempts:
        click.echo(_of_attempt(attempt))
    for receipt in receipts:
        kept = f", committed {receipt.committed_at:%F %T}" if receipt.committed_at else ""
        click.echo(
            f"  delivered {receipt.delivered_at:%F %T} to {receipt.destination}, "
            f"status {receipt.status_code}{kept}"
        )
    for one in standings:
        click.echo(_of_standing(one))
    _print_end(row)


def _print_head(row: CaseRow, series_count: int, image_count: int) -> None:
    run = f", run {row.run}" if row.run > 1 else ""
    turn = "" if row.priority == "normal" else f", priority {row.priority}"
    title = f"{row.case_id}  {row.state.value}  revision {row.revision}{run}{turn}"
    click.secho(title, bold=True)
    click.echo(
        f"  {image_count} images in {series_count} series, the first {row.opened_at:%F %T}, "
        f"the last {row.last_received_at:%F %T}"
    )
    if row.closed_by is not None:
        click.echo(f"  closed {row.closed_at:%F %T} ({row.closed_by.value}): {row.reason}")
    elif row.reason:
        click.echo(f"  waits for: {row.reason}")


def _of_attempt(attempt: AttemptRow) -> str:
    where = f" to {attempt.destination}" if attempt.destination else ""
    took = ""
    if attempt.ended_at is not None:
        took = f", {(attempt.ended_at - attempt.started_at).total_seconds():.1f} s"
    why = f": {attempt.code}: {attempt.sentence}" if attempt.code else ""
    how = attempt.outcome or "not ended"
    return f"  {attempt.stage.value} {attempt.started_at:%F %T}{where}: {how}{took}{why}"


def _of_standing(one: Standing) -> str:
    kept = "" if one.committed_count is None else f", {one.committed_count} committed"
    next_ = f", next {one.next_at:%F %T}" if one.next_at else ""
    why = f": {one.code}: {one.sentence}" if one.code else ""
    return (
        f"  {one.destination}: {one.state}, {one.stored_count} of {one.object_count} objects stored"
        f"{kept}, attempts: {one.attempt_count}{next_}{why}"
    )


def _print_end(row: CaseRow) -> None:
    from node import series_table

    series_table.show_findings(row.summary or {})
    series_table.show_volumes(row.summary or {})
    if row.purged_at is not None:
        click.echo(f"  files deleted {row.purged_at:%F %T}")
    if row.code:
        click.secho(f"  {row.code}: {row.sentence}", fg="red")
        click.echo(f"  -> {row.advice}")


# -- what an operator can do: the ledger changes, the node's jobs follow in its next look ---------


@click.command()
@click.argument("case_id")
@click.pass_obj
def retry(settings: Settings, case_id: str) -> None:
    """Start a failed, rejected or cancelled case again where it stood.

    Of one that is being delivered, what waits for its next try is tried now.
    """
    from node.actions import Action, Order, carry_out
    from node.cases import CaseState

    with writing(settings) as ledger:
        row = carry_out(ledger, case_id, Order(action=Action.RETRY))
    if row.state is CaseState.ENCODED:
        click.echo(f"{case_id}: what waits to be delivered is tried now")
    else:
        click.echo(f"{case_id} goes on from {row.state}")


@click.command()
@click.argument("case_id")
@click.pass_obj
def release(settings: Settings, case_id: str) -> None:
    """Deliver a result that is held until somebody has looked at it."""
    from node.actions import Action, Order, carry_out

    with writing(settings) as ledger:
        carry_out(ledger, case_id, Order(action=Action.RELEASE))
    click.echo(f"{case_id} is released and goes to its destinations")


@click.command()
@click.argument("case_id")
@click.pass_obj
def cancel(settings: Settings, case_id: str) -> None:
    """Stop a case; what it has received stays."""
    from node.actions import Action, Order, carry_out

    with writing(settings) as ledger:
        carry_out(ledger, case_id, Order(action=Action.CANCEL))
    click.echo(f"{case_id} is cancelled")


@click.command()
@click.argument("case_id")
@click.pass_obj
def complete(settings: Settings, case_id: str) -> None:
    """Close a case that still receives with what there is."""
    from node.actions import Action, Order, carry_out

    with writing(settings) as ledger:
        carry_out(ledger, case_id, Order(action=Action.COMPLETE))
    click.echo(f"{case_id} is closed at the node's next look, with what there is")


@click.command()
@click.argument("case_id")
@click.argument("level", type=click.Choice(["high", "normal", "low"]))
@click.pass_obj
def priority(settings: Settings, case_id: str, level: str) -> None:
    """Say whose turn comes first among cases that wait; it holds from the next stage on."""
    from node.actions import Action, Order, carry_out
    from node.cases import Priority

    with writing(settings) as ledger:
        carry_out(ledger, case_id, Order(action=Action.PRIORITY, priority=Priority(level)))
    click.echo(f"{case_id} has {level} priority")


@click.command()
@click.argument("case_id")
@click.argument("choices", nargs=-1, metavar="[ROLE=NUMBER]...")
@click.option("--none", "is_none", is_flag=True, help="Take every earlier choice back.")
@click.pass_obj
def choose(settings: Settings, case_id: str, choices: tuple[str, ...], *, is_none: bool) -> None:
    """Say which series serves which role; NUMBER is that of `neuroseg cases show CASE_ID`.

    The choices replace all earlier ones. Roles that are not named are left to the node.
    """
    from node import model_set, series_table
    from node.actions import Action, Order, carry_out

    if is_none == bool(choices):
        raise click.UsageError("name at least one ROLE=NUMBER, or give --none")
    roles = model_set.roles(settings)
    wanted = _parse(choices, roles)
    with writing(settings) as ledger:
        listed = {one.number: one for one in series_table.numbered(ledger.decisions(case_id))}
        row = carry_out(ledger, case_id, Order(action=Action.CHOOSE, series=wanted), roles)
    for role, number in wanted.items():
        one = listed[number].decision
        what = series_table.printable(one.description) or "no description"
        click.echo(f'{role} = {number}: "{what}", {one.sequence}')
    click.echo(_then(case_id, row))


def _parse(choices: Sequence[str], roles: Sequence[Role]) -> Mapping[Role, int]:
    """Return which number was named for which role.

    Raises
    ------
    click.BadParameter
        A choice that is none, or names a role that there is not.
    """
    found: dict[Role, int] = {}
    for choice in choices:
        role, _, number = choice.partition("=")
        if role not in roles:
            raise click.BadParameter(f"{choice!r}: the role is none of {', '.join(roles)}")
        if role in found:
            raise click.BadParameter(f"{choice!r}: {role} is named twice")
        if not _NUMBER.fullmatch(number):
            raise click.BadParameter(f"{choice!r}: what follows = is no number of a series")
        found[role] = int(number)
    return found


def _then(case_id: str, row: CaseRow) -> str:
    """Return what happens next."""
    from node.cases import CaseState

    if row.case_id != case_id:
        return f"revision {row.revision} of the study is opened for it: {row.case_id}"
    if row.state is CaseState.RECEIVING:
        return f"{case_id} is decided by it at the node's next look"
    return f"kept; start the case again: neuroseg cases retry {case_id}"


COMMANDS = (show, retry, release, cancel, complete, priority, choose)
