"""What the node would do with the studies of a folder, and why: from headers alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from converters.errors import CodedError
from converters.sequences import SeriesKey
from converters.volume import Role
from inference import manifest as manifests
from node import assemble, closing, facts, folder, series_table
from node.assemble import Close, OpenCase, Refuse, Rules, SeriesFacts
from node.cases import AssembledCase, ReceivedInstance, SeriesDecision
from node.disposition import coded
from node.facts import Site
from node.folder import Folder
from node.series_table import Row
from node.settings import Assemble, Settings

HEADERS_ONLY: Final = (
    "Decided from the headers, as if nothing more would arrive. Pixels, registration and "
    "plausibility are checked when a study runs. Research use only."
)
_AT_ONCE: Final = {"settle_s": 0.0, "quiet_s": 0.0}
_STEPS: Final = 50  # files between two updates of the progress line


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would become of a study.

    Parameters
    ----------
    number : int
        Of the study in its folder, from 1; nothing else names it.
    instances : tuple of ReceivedInstance
        What it holds.
    rows : tuple of Row
        Its series by number.
    case : AssembledCase, optional
        What the model would get; None where the study would be refused.
    error : CodedError, optional
        Why it would be refused.
    """

    number: int
    instances: tuple[ReceivedInstance, ...]
    rows: tuple[Row, ...] = ()
    case: AssembledCase | None = None
    error: CodedError | None = None

    @property
    def would_run(self) -> bool:
        """Whether the model would see it."""
        return self.case is not None


def run(dicom_dir: Path, settings: Settings, *, as_json: bool) -> int:
    """Print what the node would do with each study of a folder; return the exit code."""
    manifest = manifests.load(settings.model.folder)
    at_once = at_once_of(settings.assemble)
    rules = closing.rules_of(manifest, at_once)
    site = closing.site_of(manifest, settings)
    limit = settings.receive.max_instance_bytes
    found = folder.read(
        dicom_dir, limit_bytes=limit, progress=progress_line(is_terminal=sys.stderr.isatty())
    )
    verdicts = [
        judge(number, instances, rules, site)
        for number, instances in enumerate(_studies(found.instances), start=1)
    ]
    if as_json:
        click.echo(json.dumps(_report(verdicts, found, rules.roles), indent=2))
    else:
        _print(verdicts, found, rules.roles)
    return 0 if any(one.would_run for one in verdicts) else 1


def at_once_of(waiting: Assemble) -> Assemble:
    """Return the settings under which nothing is waited for."""
    return waiting.model_copy(update=_AT_ONCE)


def _studies(instances: Iterable[ReceivedInstance]) -> list[list[ReceivedInstance]]:
    """Return the instances by study, in the order of the files."""
    found: dict[str, list[ReceivedInstance]] = {}
    for one in instances:
        found.setdefault(one.study_instance_uid, []).append(one)
    return list(found.values())


def judge(number: int, instances: Sequence[ReceivedInstance], rules: Rules, site: Site) -> Verdict:
    """Return what would become of a study, a defect of ours included.

    Parameters
    ----------
    number, instances, rules, site
        As `decided`.
    """
    try:
        return decided(number, instances, rules, site)
    except Exception as error:  # noqa: BLE001 - one study; its neighbours go on, as in the node
        return Verdict(number=number, instances=tuple(instances), error=coded(error))


def decided(
    number: int, instances: Sequence[ReceivedInstance], rules: Rules, site: Site
) -> Verdict:
    """Return the verdict on a study whose instances lie anywhere on this machine.

    Parameters
    ----------
    number : int
        Of the study.
    instances : sequence of ReceivedInstance
        With absolute paths.
    rules : Rules
        What the model needs, with nothing to wait for.
    site : Site
        What the site says of its series.
    """
    known = tuple(
        one
        for many in facts.by_series(instances).values()
        for one in facts.facts_of(many, [Path(each.path) for each in many], site)
    )
    now = datetime.now(UTC)
    case = OpenCase(
        case_id=f"study-{number}",
        study_instance_uid=instances[0].study_instance_uid,
        opened_at=now,
        last_received_at=now,
    )
    decision = assemble.decide(case, known, rules, now)
    return Verdict(
        number=number,
        instances=tuple(instances),
        rows=rows_of(decision.decisions, known),
        case=decision.case if isinstance(decision, Close) else None,
        error=decision.error if isinstance(decision, Refuse) else None,
    )


def rows_of(decisions: Iterable[SeriesDecision], known: Iterable[SeriesFacts]) -> tuple[Row, ...]:
    """Return the series of a study numbered as they were acquired."""
    facts_of_key = {one.key: one for one in known}

    def _when(one: SeriesDecision) -> tuple[float, str, str]:
        own = facts_of_key[_key(one)]
        at_s = own.evidence.acquired_at_s
        first = min(instance.path for instance in own.instances)
        return float("inf") if at_s is None else at_s, first, one.part

    return tuple(
        Row(number=number, decision=one, fault=str(facts_of_key[_key(one)].fault or ""))
        for number, one in enumerate(sorted(decisions, key=_when), start=1)
    )


def _key(decision: SeriesDecision) -> SeriesKey:
    return SeriesKey(decision.series_instance_uid, decision.part)


# -- as text --------------------------------------------------------------------------------------


def _print(verdicts: Sequence[Verdict], found: Folder, roles: Sequence[Role]) -> None:
    for one in verdicts:
        count = len(one.instances)
        images = f"{count} image{'' if count == 1 else 's'}"
        series_count = len({each.series_instance_uid for each in one.instances})
        title = f"Study {one.number}: {images} in {series_count} series"
        click.secho(title, bold=True)
        if one.rows:
            series_table.show(one.rows, roles)
        _print_verdict(one, roles)
    for reason, count in sorted(found.left_out.items()):
        click.echo(f"Left out: {count} files: {reason}")
    if not verdicts:
        click.echo("No DICOM study here.")
    series_table.say(HEADERS_ONLY)


def _print_verdict(verdict: Verdict, roles: Sequence[Role]) -> None:
    if verdict.error is not None:
        sentence = f"REFUSED  {verdict.error.code}: {verdict.error}"
        series_table.say(sentence, first="  ", further=" " * 11, color="red")
        series_table.say(f"-> {verdict.error.advice}", first=" " * 11, further=" " * 14)
        click.echo("")
        return
    numbers = series_table.numbers_by_role(verdict.rows)
    given = ", ".join(f"{role} = {numbers[role]}" for role in roles if role in numbers)
    missing = ", ".join(role for role in roles if role not in numbers)
    click.secho(f"  WOULD RUN  {given}; the result lies on {_reference(verdict)}", fg="green")
    if missing:
        click.echo(f"             without {missing}, which this model can do without")
    click.echo("")


def _reference(verdict: Verdict) -> Role | None:
    return None if verdict.case is None else verdict.case.reference_role


def _report(verdicts: Sequence[Verdict], found: Folder, roles: Sequence[Role]) -> dict[str, Any]:
    return {
        "studies": [
            {
                "number": one.number,
                "would_run": one.would_run,
                "images": len(one.instances),
                "reference_role": _reference(one),
                "code": None if one.error is None else one.error.code,
                "sentence": None if one.error is None else str(one.error),
                "advice": None if one.error is None else one.error.advice,
                "series": [
                    series_table.as_json(row) for row in series_table.ordered(one.rows, roles)
                ],
            }
            for one in verdicts
        ],
        "left_out": [
            {"reason": reason, "files": count} for reason, count in sorted(found.left_out.items())
        ],
    }


def progress_line(*, is_terminal: bool) -> folder.Progress | None:
    """Return what keeps a line on a terminal up to date; None where nobody looks."""
    if not is_terminal:
        return None

    def show(done: int, total: int) -> None:
        if done % _STEPS == 0 or done == total:
            end = "\n" if done == total else ""
            click.echo(f"\r{done} of {total} files read{end}", nl=False, err=True)

    return show
