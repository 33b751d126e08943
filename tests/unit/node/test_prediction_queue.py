"""The queue of predictions: in order, one at a time, never lost, never more than allowed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.errors import PredictionQueueFullError, PredictionUnknownError
from node.ledger import Ledger
from node.prediction_queue import MAX_TRIES, PredictionQueue
from node.prediction_rows import Failure, PredictionRow, PredictionState

FAILURE = Failure(code="X", sentence="x", advice="X.", disposition="investigate")


pytestmark = pytest.mark.databases


@pytest.fixture
def queue(ledger: Ledger) -> PredictionQueue:
    return PredictionQueue(ledger.engine)


def _opened(queue: PredictionQueue, *, is_awaited: bool = False, owner: str = "a/web") -> str:
    return queue.open(owner, is_awaited=is_awaited, max_waiting=1000)


def _queued(queue: PredictionQueue, *, is_awaited: bool = False) -> str:
    prediction_id = _opened(queue, is_awaited=is_awaited)
    assert queue.accept(prediction_id, byte_count=7)
    return prediction_id


def _taken(queue: PredictionQueue, executor_id: str = "a/infer") -> PredictionRow:
    row = queue.take(executor_id)
    assert row is not None
    return row


def test_the_first_that_was_accepted_is_taken_first(queue: PredictionQueue) -> None:
    slow = _opened(queue)
    first, second = _queued(queue), _queued(queue)
    assert queue.accept(slow, byte_count=1)
    assert [queue.position(queue.row(one)) for one in (first, second, slow)] == [1, 2, 3]
    assert [one.prediction_id for one in queue.open_rows()] == [first, second, slow]
    assert [_taken(queue).prediction_id for _ in range(3)] == [first, second, slow]
    assert queue.take("a/infer") is None
    assert not queue.has_queued()


def test_what_is_still_arriving_is_not_taken(queue: PredictionQueue) -> None:
    prediction_id = _opened(queue)
    assert not queue.has_queued()
    assert queue.take("a/infer") is None
    assert queue.row(prediction_id).state is PredictionState.RECEIVING


def test_no_more_wait_than_may(queue: PredictionQueue) -> None:
    _queued(queue)
    queue.open("a/web", is_awaited=True, max_waiting=2)
    with pytest.raises(PredictionQueueFullError, match="2 predictions wait already, at most 2"):
        queue.open("a/web", is_awaited=True, max_waiting=2)
    _taken(queue)
    queue.open("a/web", is_awaited=True, max_waiting=2)


def test_many_at_once_get_one_number_each_and_no_place_too_many(queue: PredictionQueue) -> None:
    def enter(_: int) -> str | None:
        try:
            prediction_id = queue.open("a/web", is_awaited=False, max_waiting=10)
        except PredictionQueueFullError:
            return None
        queue.accept(prediction_id, byte_count=1)
        return prediction_id

    with ThreadPoolExecutor(8) as pool:
        entered = [one for one in pool.map(enter, range(16)) if one is not None]
    numbers = [queue.row(one).number for one in entered]
    assert len(entered) == 10
    assert sorted(one for one in numbers if one is not None) == list(range(1, 11))


def test_each_is_taken_once(queue: PredictionQueue) -> None:
    ids = [_queued(queue) for _ in range(12)]
    taken: list[str] = []

    def work(number: int) -> None:
        while queue.has_queued():
            row = queue.take(f"{number}/infer")
            if row is not None:
                taken.append(row.prediction_id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == sorted(ids)


def test_a_result_is_recorded_with_its_notes(queue: PredictionQueue) -> None:
    prediction_id = _queued(queue)
    row = _taken(queue)
    assert (row.state, row.tries, row.byte_count) == (PredictionState.RUNNING, 1, 7)
    assert queue.note_progress(row, 3, 8)
    assert queue.row(prediction_id).windows_done == 3
    assert queue.finish(row, model_id="m@1", notes=[{"code": "N", "sentence": "n"}])
    done = queue.row(prediction_id)
    assert (done.state, done.model_id) == (PredictionState.DONE, "m@1")
    assert done.notes == [{"code": "N", "sentence": "n"}]
    assert done.ended_at is not None
    assert done.started_at is not None
    assert done.submitted_at <= done.started_at <= done.ended_at
    assert queue.ended([prediction_id]) == {prediction_id}


@pytest.mark.parametrize("how", ["cancel", "forget"])
def test_what_nobody_wants_any_more_is_noticed_and_stays_so(
    queue: PredictionQueue, how: str
) -> None:
    prediction_id = _queued(queue)
    row = _taken(queue)
    getattr(queue, how)(prediction_id)
    assert not queue.note_progress(row, 1, 2)
    assert not queue.finish(row, model_id="m@1", notes=[])
    assert not queue.fail(row, FAILURE)
    assert not queue.put_back(row)
    assert not queue.cancel(prediction_id)
    assert queue.ended([prediction_id]) == {prediction_id}


def test_an_upload_that_was_given_up_is_not_accepted(queue: PredictionQueue) -> None:
    prediction_id = _opened(queue)
    queue.forget(prediction_id)
    assert not queue.accept(prediction_id, byte_count=1)
    with pytest.raises(PredictionUnknownError):
        queue.row(prediction_id)


def test_what_a_dead_process_computed_keeps_its_place_a_few_times(queue: PredictionQueue) -> None:
    first, _ = _queued(queue), _queued(queue)
    for number in range(MAX_TRIES):
        row = _taken(queue)
        assert (row.prediction_id, row.tries) == (first, number + 1)
        assert queue.recover({"a/infer"}, FAILURE) == 1
    failed = queue.row(first)
    assert (failed.state, failed.code, failed.disposition) == (
        PredictionState.FAILED,
        "X",
        "investigate",
    )
    assert _taken(queue).prediction_id != first


def test_a_run_that_was_taken_over_cannot_end_the_next_one(queue: PredictionQueue) -> None:
    _queued(queue)
    old = _taken(queue)
    queue.recover({"a/infer"}, FAILURE)
    new = _taken(queue)
    assert not queue.finish(old, model_id="m@1", notes=[])
    assert queue.finish(new, model_id="m@1", notes=[])


def test_a_process_that_is_told_to_stop_costs_no_try(queue: PredictionQueue) -> None:
    _queued(queue)
    assert queue.put_back(_taken(queue))
    assert _taken(queue).tries == 1


def test_who_computes_is_known(queue: PredictionQueue) -> None:
    for name in ("a/infer", "b/infer"):
        _queued(queue)
        _taken(queue, name)
    _queued(queue)
    assert queue.running_executors() == {"a/infer", "b/infer"}


def test_a_web_process_forgets_what_its_forerunner_received_or_waited_for(
    queue: PredictionQueue,
) -> None:
    _opened(queue)
    _queued(queue, is_awaited=True)
    kept, foreign = _queued(queue), _opened(queue, owner="b/web")
    assert queue.abandon("a/web") == 2
    assert {one.prediction_id for one in queue.open_rows()} == {kept, foreign}


def test_results_are_forgotten_in_time(queue: PredictionQueue) -> None:
    done, waiting = _queued(queue), _queued(queue)
    queue.finish(_taken(queue), model_id="m@1", notes=[])
    assert queue.forget_ended(older_than_s=3600.0) == []
    assert queue.without_files([done, waiting, "f" * 32]) == {"f" * 32}
    assert queue.forget_ended(older_than_s=0.0) == [done]
    assert queue.without_files([done, waiting]) == {done}


def test_what_failed_or_was_cancelled_keeps_no_files(queue: PredictionQueue) -> None:
    failed, cancelled = _queued(queue), _queued(queue)
    queue.fail(_taken(queue), FAILURE)
    queue.cancel(cancelled)
    assert queue.without_files([failed, cancelled]) == {failed, cancelled}
