"""Traces of cases, as a collector of OpenTelemetry receives them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from node import logs, traces
from node.settings import Traces
from node.traces import Tracer
from tests.web_cases import WebNode


class _Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; `status` is what it answers, `taken` what it took."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.status = 200
        self.taken: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[Span]:
        """Return what was taken, each once, however often a slow answer had it sent."""
        found = [
            span
            for request in self.taken
            for one in request.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ]
        return list({one.span_id: one for one in found}.values())


class _Door(BaseHTTPRequestHandler):
    server: _Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.status == 200:
            self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[_Collector]:
    with _Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    logs.configure(role="work", strict=True)
    made = WebNode.create(tmp_path)
    yield made
    made.ledger.close()


def said(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


def test_a_case_that_ends_is_one_trace_with_a_span_for_each_stage(
    node: WebNode, collector: _Collector
) -> None:
    node.delivered("1.2.1")  # before the process began
    tracer = Tracer(collector.url, node.ledger)
    case_id = node.receive("1.2.2")
    node.close(case_id)
    seg = node.encode(case_id)
    error = node.fail_delivery(case_id)
    tracer.look()
    assert collector.taken == []
    node.deliver(seg)
    tracer.look()
    tracer.look()
    spans = collector.spans()
    assert [one.name for one in spans] == [
        "case",
        "receive",
        "convert",
        "segment",
        "encode",
        "deliver",
        "deliver",
    ]
    assert {one.trace_id.hex() for one in spans} == {case_id}
    whole, *parts = spans
    assert len({one.span_id for one in spans}) == len(spans)
    assert {one.parent_span_id for one in parts} == {whole.span_id}
    assert whole.parent_span_id == b""
    assert min(one.start_time_unix_nano for one in parts) == whole.start_time_unix_nano
    assert max(one.end_time_unix_nano for one in parts) == whole.end_time_unix_nano
    failed, done = parts[-2:]
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert said(failed)["neuroseg.code"] == error.code
    assert said(failed)["neuroseg.destination"] == said(done)["neuroseg.destination"] == "pacs"
    assert done.status.code == Status.STATUS_CODE_OK
    assert said(whole)["neuroseg.state"] == "delivered"
    assert b"1.2.2" not in collector.taken[0].SerializeToString()


def test_what_the_collector_does_not_take_is_offered_again(
    node: WebNode, collector: _Collector
) -> None:
    tracer = Tracer(collector.url, node.ledger)
    first, second = node.rejected("1.2.1"), node.failed("1.2.2")
    collector.status = 400
    tracer.look()
    collector.status = 200
    tracer.look()
    assert [one.trace_id.hex() for one in collector.spans() if one.name == "case"] == [
        first,
        second,
    ]


def test_nobody_is_sent_anything_by_default(node: WebNode) -> None:
    assert traces.tickers(Traces(), node.ledger) == ()
