"""Whether work on a case is still wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.cases import CaseState
from node.ledger import Ledger
from node.watch import Watch
from tests.ledgers import CANCELLED, advanced, opened
from tests.waiting import wait_until


@pytest.mark.parametrize("again", [False, True])
def test_work_is_unwanted_once_its_case_is_cancelled_or_runs_anew(
    ledger: Ledger,
    again: bool,  # noqa: FBT001 - a case of the test
) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ASSEMBLED)
    with Watch(ledger, row) as watch:
        assert not watch()
        ledger.end_case(row.case_id, CANCELLED)
        if again:
            ledger.reopen(row.case_id)
        wait_until(watch, 2.0, "the watch to notice")


def test_work_on_a_case_that_is_gone_is_unwanted(ledger: Ledger) -> None:
    row = advanced(ledger, opened(ledger), CaseState.ASSEMBLED)
    with Watch(ledger, replace(row, case_id="0" * 32)) as watch:
        wait_until(watch, 2.0, "the watch to notice")
