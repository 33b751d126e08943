"""Requests made of the description, valid and not: every answer is one that it describes."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.errors import SerializationNotPossible
from schemathesis.core.result import Ok
from schemathesis.openapi.loaders import from_url
from schemathesis.specs.openapi.checks import positive_data_acceptance

from node import logs
from tests.web_cases import WebNode, served

_ON_PURPOSE = {503, 507}  # not ready, no space: said with a code and when to try again
_WITHOUT_END = "/api/v1/changes"  # an answer of ten minutes; test_changes.py has its own
_QUICK = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def _answered(case: Case[Any]) -> None:
    # What is well formed may still be refused: a case in another state, a file that is none.
    excluded: list[CheckFunction] = [not_a_server_error, positive_data_acceptance]
    answer = case.call_and_validate(excluded_checks=excluded)
    assert answer.status_code < 500 or answer.status_code in _ON_PURPOSE


def test_every_answer_is_described(tmp_path: Path) -> None:
    logs.configure(role="web", strict=True)
    node = WebNode.create(tmp_path)
    node.delivered("1.2.1")
    node.failed("1.2.2")
    node.receive("1.2.3")
    tried: Counter[GenerationMode] = Counter()
    with served(node.app()) as url:
        described = from_url(f"{url}/openapi.json").exclude(path=_WITHOUT_END)
        for found in described.get_all_operations():
            assert isinstance(found, Ok)
            for mode in GenerationMode:
                cases = found.ok().as_strategy(generation_mode=mode)
                # Any text is good enough for some; multipart/related has a hunt of its own.
                with suppress(Unsatisfiable, SerializationNotPossible):
                    _QUICK(given(cases)(_answered))()
                    tried[mode] += 1
    node.ledger.close()
    assert tried[GenerationMode.POSITIVE] >= 15
    assert tried[GenerationMode.NEGATIVE] >= 2
