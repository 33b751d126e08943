"""Files of predictions do not outlive their use."""

from __future__ import annotations

import pytest

from node.housekeeping import Housekeeper
from node.ledger import Ledger
from node.prediction_queue import PredictionQueue
from node.prediction_rows import Failure
from node.spool import STOWED, Spool

FAILURE = Failure(code="X", sentence="x", advice="X.", disposition="reject")


@pytest.fixture
def queue(ledger: Ledger) -> PredictionQueue:
    return PredictionQueue(ledger.engine)


def _keeper(queue: PredictionQueue, spool: Spool, keep_s: float = 3600.0) -> Housekeeper:
    return Housekeeper(queue, spool, owner="a/web", keep_s=keep_s)


def _opened(queue: PredictionQueue, spool: Spool, owner: str, *, is_awaited: bool) -> str:
    prediction_id = queue.open(owner, is_awaited=is_awaited, max_waiting=100)
    (spool.new_prediction_folder(prediction_id) / "input.part").write_bytes(b"x")
    return prediction_id


def _queued(
    queue: PredictionQueue, spool: Spool, owner: str = "a/web", *, is_awaited: bool = False
) -> str:
    prediction_id = _opened(queue, spool, owner, is_awaited=is_awaited)
    queue.accept(prediction_id, byte_count=1)
    return prediction_id


def test_what_an_earlier_process_left_is_swept_at_the_start(
    queue: PredictionQueue, spool: Spool
) -> None:
    _opened(queue, spool, "a/web", is_awaited=False)
    _queued(queue, spool, is_awaited=True)
    spool.new_prediction_folder("f" * 32)
    kept = [
        _queued(queue, spool),
        _queued(queue, spool, "b/web", is_awaited=True),
        _opened(queue, spool, "b/web", is_awaited=False),
    ]
    _keeper(queue, spool).begin()
    assert spool.prediction_ids() == sorted(kept)


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_another_web_process_is_writing_is_left_to_it(
    queue: PredictionQueue, spool: Spool, *, is_alone: bool
) -> None:
    part = spool.new_part(STOWED)
    part.write_bytes(b"half")
    _keeper(queue, spool).begin(is_alone=is_alone)
    assert part.exists() != is_alone


def test_a_look_touches_nothing_that_somebody_waits_for(
    queue: PredictionQueue, spool: Spool
) -> None:
    _opened(queue, spool, "a/web", is_awaited=True)
    _queued(queue, spool, is_awaited=True)
    before = spool.prediction_ids()
    _keeper(queue, spool, keep_s=0.0).look()
    assert spool.prediction_ids() == before


@pytest.mark.parametrize(("keep_s", "left"), [(3600.0, 1), (0.0, 0)])
def test_a_result_is_kept_as_long_as_it_was_promised(
    queue: PredictionQueue, spool: Spool, keep_s: float, left: int
) -> None:
    _queued(queue, spool)
    row = queue.take("a/infer")
    assert row is not None
    queue.finish(row, model_id="m@1", notes=[])
    _keeper(queue, spool, keep_s).look()
    assert len(spool.prediction_ids()) == left


def test_what_failed_or_was_cancelled_has_no_files(queue: PredictionQueue, spool: Spool) -> None:
    _queued(queue, spool)
    row = queue.take("a/infer")
    assert row is not None
    queue.fail(row, FAILURE)
    queue.cancel(_queued(queue, spool))
    _keeper(queue, spool).look()
    assert spool.prediction_ids() == []
    assert queue.row(row.prediction_id).code == "X"


def test_files_written_after_their_row_has_gone_are_swept(
    queue: PredictionQueue, spool: Spool
) -> None:
    prediction_id = _queued(queue, spool)
    queue.forget(prediction_id)
    spool.drop_prediction(prediction_id)
    (spool.new_prediction_folder(prediction_id) / ".late.part.nii.gz").write_bytes(b"x")
    _keeper(queue, spool).look()
    assert spool.prediction_ids() == []
