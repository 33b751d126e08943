"""A trace of each case that has ended, for those who collect them: OpenTelemetry over OTLP/HTTP.

A case is a trace, whose id is the case's own; receiving it and every attempt of a stage are spans.
Times are those of the ledger, so that nothing is measured for it. Names of ours, codes and
outcomes are attributes; no study, patient or text of a peer is. What the collector does not take
is offered again while this process lives; what ended before it began is not traced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from node import logs
from node.errors import ConfigError
from node.reading import LedgerReader
from node.rows import AttemptRow, CaseRow
from node.settings import Traces
from node.ticker import Ticker

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext

_PERIOD_S: Final = 5.0
_AT_ONCE: Final = 50  # cases in one look
_TIMEOUT_S: Final = 5.0
_SERVICE: Final = "neuroseg-node"


def tickers(traces: Traces, ledger: LedgerReader) -> tuple[Ticker, ...]:
    """Return the not yet started thread that sends traces; none where nobody wants them.

    Raises
    ------
    ConfigError
        They are wanted, and the libraries for it are not installed.
    """
    if not traces.url:
        return ()
    return (Ticker("tracer", _PERIOD_S, Tracer(traces.url, ledger).look),)


class Tracer:
    """Sends a trace of every case that ends.

    Parameters
    ----------
    url : str
        Of the collector, with its path: ``http://host:4318/v1/traces``.
    ledger : LedgerReader
        Whose cases they are.
    """

    def __init__(self, url: str, ledger: LedgerReader) -> None:
        self._ledger, self._since = ledger, ledger.latest_change()
        self._exporter = _exporter(url)

    def look(self) -> None:
        """Send the traces of cases that have ended since the last one that was taken."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - an extra

        for row in self._ledger.ended_since(self._since, limit=_AT_ONCE):
            spans = list(spans_of(row, self._ledger.attempts(row.case_id)))
            if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
                logs.get().warning("traces.failed", case_id=row.case_id)
                return
            self._since = row.updated_at.timestamp()


def _exporter(url: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise ConfigError(reason="[traces] needs: pip install 'neuroseg-node[otel]'") from error
    return OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT_S)


def spans_of(row: CaseRow, attempts: Sequence[AttemptRow]) -> Iterator[ReadableSpan]:
    """Yield the spans of a case, its own first; the same case gives the same ids again."""
    ends = [one.ended_at for one in attempts if one.ended_at is not None]
    received_at = row.closed_at or row.last_received_at
    own = _context(row, "case")
    about = {"neuroseg.model": row.model_id, "neuroseg.state": row.state.value}
    yield _span("case", own, None, (row.opened_at, max([received_at, *ends])), row.code, **about)
    yield _span("receive", _context(row, "receive"), own, (row.opened_at, received_at), None)
    for one in attempts:
        if one.ended_at is not None:
            yield _span(
                one.stage.value,
                _context(row, str(one.attempt_id)),
                own,
                (one.started_at, one.ended_at),
                one.code,
                **{"neuroseg.outcome": one.outcome, "neuroseg.destination": one.destination},
            )


def _context(row: CaseRow, name: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - an extra

    digest = hashlib.sha256(f"{row.case_id} {name}".encode()).digest()
    return SpanContext(
        trace_id=int(row.case_id, 16),
        span_id=int.from_bytes(digest[:8], "big"),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _span(
    name: str,
    context: SpanContext,
    parent: SpanContext | None,
    lasted: tuple[datetime, datetime],
    code: str | None,
    **about: str | None,
) -> ReadableSpan:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    said = {**about, "neuroseg.code": code}
    return ReadableSpan(
        name=name,
        context=context,
        parent=parent,
        resource=Resource({"service.name": _SERVICE}),
        attributes={key: value for key, value in said.items() if value is not None},
        status=Status(StatusCode.OK if code is None else StatusCode.ERROR, code),
        start_time=_nanoseconds(lasted[0]),
        end_time=_nanoseconds(max(lasted)),
    )


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
