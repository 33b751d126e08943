"""What computes predictions: stopped in time, taken up again, failed with a code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from inference import manifest, model
from inference.errors import PredictionStoppedError
from inference.model import LoadedModel
from inference.predict import Prediction
from node import predictions
from node.ledger import Ledger
from node.prediction_queue import MAX_TRIES, PredictionQueue
from node.prediction_rows import PredictionState
from node.predictions import Predictor
from node.spool import Spool
from node.turns import Turns
from tests import tiny_models
from tests.nodes import BRAIN_MASK
from tests.predictions import packed
from tests.waiting import wait_until

EXECUTOR = "a/infer"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tiny_models.written(tmp_path_factory.mktemp("model") / "tiny")
    return model.load(manifest.load(folder), device="cpu", mask_folder=BRAIN_MASK)


@pytest.fixture
def queue(ledger: Ledger) -> PredictionQueue:
    return PredictionQueue(ledger.engine)


@pytest.fixture
def predictor(queue: PredictionQueue, spool: Spool, loaded: LoadedModel) -> Predictor:
    return Predictor(queue, spool, loaded, Turns(), executor_id=EXECUTOR)


def _queued(queue: PredictionQueue, spool: Spool, content: bytes | None = None) -> str:
    prediction_id = queue.open("a/web", is_awaited=False, max_waiting=100)
    folder = spool.new_prediction_folder(prediction_id)
    (folder / "input.nii.gz").write_bytes(packed() if content is None else content)
    queue.accept(prediction_id, byte_count=1)
    return prediction_id


@contextmanager
def _endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the model compute until it is told to stop."""
    started = threading.Event()

    def endless(*_: object, progress: object, stop: object, **__: object) -> Prediction:
        assert callable(progress)
        assert callable(stop)
        progress(1, 9)
        started.set()
        wait_until(stop, 20.0, "the order to stop")
        raise PredictionStoppedError(windows_done=1, window_count=9)

    monkeypatch.setattr(predictions, "predict", endless)
    yield started


def test_what_the_model_refuses_fails_with_its_code_and_leaves_no_file(
    queue: PredictionQueue, spool: Spool, predictor: Predictor
) -> None:
    ids = [_queued(queue, spool), _queued(queue, spool, b"no image at all")]
    predictor.look()
    rows = [queue.row(one) for one in ids]
    assert [row.state for row in rows] == [PredictionState.FAILED] * 2
    assert [row.code for row in rows] == ["BRAIN_NOT_FOUND", "NIFTI_UNUSABLE"]
    assert {row.disposition for row in rows} == {"reject"}
    assert spool.prediction_ids() == []


def test_what_is_cancelled_stops_and_leaves_no_file(
    queue: PredictionQueue,
    spool: Spool,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prediction_id = _queued(queue, spool)
    with _endless(monkeypatch) as started:
        looking = threading.Thread(target=predictor.look)
        looking.start()
        assert started.wait(20)
        predictor.watch()
        assert queue.row(prediction_id).windows_done == 1
        assert looking.is_alive()
        queue.cancel(prediction_id)
        predictor.watch()
        looking.join(20)
    assert queue.row(prediction_id).state is PredictionState.CANCELLED
    assert spool.prediction_ids() == []


def test_a_process_that_is_told_to_end_puts_its_work_back(
    queue: PredictionQueue,
    spool: Spool,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prediction_id = _queued(queue, spool)
    with _endless(monkeypatch) as started:
        looking = threading.Thread(target=predictor.look)
        looking.start()
        assert started.wait(20)
        predictor.end()
        looking.join(20)
    row = queue.row(prediction_id)
    assert (row.state, row.tries) == (PredictionState.QUEUED, 0)
    assert spool.prediction_ids() == [prediction_id]
    predictor.look()
    assert queue.row(prediction_id).state is PredictionState.QUEUED


def test_an_unforeseen_failure_tells_nothing_of_its_words_and_the_next_one_goes_on(
    queue: PredictionQueue,
    spool: Spool,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> Prediction:
        raise KeyError("DOE^JANE")

    monkeypatch.setattr(predictions, "predict", broken)
    ids = [_queued(queue, spool), _queued(queue, spool)]
    predictor.look()
    assert [queue.row(one).code for one in ids] == ["UNFORESEEN", "UNFORESEEN"]
    assert "DOE" not in str([queue.row(one) for one in ids]) + capsys.readouterr().out


def test_a_ledger_that_fails_in_between_costs_a_try_and_no_more(
    queue: PredictionQueue,
    spool: Spool,
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prediction_id = _queued(queue, spool)

    def failing(*_: object, **__: object) -> Prediction:
        raise OperationalError("", None, Exception())

    monkeypatch.setattr(predictions, "predict", failing)
    for _ in range(MAX_TRIES):
        assert queue.row(prediction_id).state in (PredictionState.QUEUED, PredictionState.RUNNING)
        with pytest.raises(OperationalError):
            predictor.look()
    predictor.look()
    row = queue.row(prediction_id)
    assert (row.state, row.code) == (PredictionState.FAILED, "JOB_CRASHED")


def test_what_a_dead_process_left_is_taken_over(
    queue: PredictionQueue, spool: Spool, predictor: Predictor
) -> None:
    lost = _queued(queue, spool)
    assert queue.take("dead/infer")
    predictor.take_over(timeout_s=60.0)
    assert queue.row(lost).state is PredictionState.QUEUED
    predictor.look()
    assert queue.row(lost).state is PredictionState.FAILED  # no head in it


def test_an_upload_that_has_gone_is_no_crash(
    queue: PredictionQueue, spool: Spool, predictor: Predictor, tmp_path: Path
) -> None:
    del tmp_path
    prediction_id = _queued(queue, spool)
    spool.drop_prediction(prediction_id)
    predictor.look()
    assert queue.row(prediction_id).code == "SPOOL_UNWRITABLE"
