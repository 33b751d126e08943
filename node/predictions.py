"""Predictions of uploaded files: taken from the queue, computed, answered. Infer process alone.

One at a time, in turns with the cases (`node.turns`). Whoever no longer wants a result says so in
the ledger; `watch` sees it and stops the computation between two windows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from converters import nifti, nifti_answer
from converters.errors import CodedError
from inference.errors import PredictionStoppedError
from inference.manifest import Manifest
from inference.model import LoadedModel
from inference.predict import Prediction, predict
from inference.quality import Note
from node import disposition, logs
from node.disposition import Disposition
from node.errors import JobCrashedError, SpoolUnwritableError
from node.prediction_queue import PredictionQueue
from node.prediction_rows import Failure, PredictionRow
from node.spool import Spool
from node.turns import Turns

INPUT_NAMES = ("input.nii.gz", "input.nii")
ANSWER_NAME = "labels.nii.gz"
_NOTICE = "Research use only; not for diagnosis or treatment."

Boundary = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class _Run:
    """The computation that is going on."""

    row: PredictionRow
    windows_done: int = 0
    window_count: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: int, total: int) -> None:
        self.windows_done, self.window_count = done, total


class Predictor:
    """Computes what waits; `look` and `watch` are called again and again, each by its own thread.

    Parameters
    ----------
    queue : PredictionQueue
        Where predictions wait.
    spool : Spool
        Where their files lie.
    model : LoadedModel
        The one that computes the cases too.
    turns : Turns
        Shared with the cases.
    executor_id : str
        Who computes, for the ledger.
    boundary : callable, optional
        Called between two steps; only tests give one, to crash there.
    """

    def __init__(
        self,
        queue: PredictionQueue,
        spool: Spool,
        model: LoadedModel,
        turns: Turns,
        *,
        executor_id: str,
        boundary: Boundary | None = None,
    ) -> None:
        self._queue, self._spool, self._model, self._turns = queue, spool, model, turns
        self._executor_id = executor_id
        self._boundary = boundary
        self._run: _Run | None = None
        self._ending = threading.Event()
        self._has_loose_end = True  # a forerunner of this process may have died in mid-run

    def look(self) -> None:
        """Compute what waits, one after the other."""
        if self._has_loose_end:
            self._recover({self._executor_id})
            self._has_loose_end = False
        while not self._ending.is_set() and self._queue.has_queued():
            with self._turns.turn():
                row = None if self._ending.is_set() else self._queue.take(self._executor_id)
                if row is not None:
                    self._has_loose_end = True  # for good when the ledger fails on the way
                    self._perform(row)
                    self._has_loose_end = False

    def take_over(self, *, timeout_s: float) -> None:
        """Queue again what processes were computing that have not beaten for so long."""
        alive = {self._executor_id} | self._queue.pulses.alive(timeout_s=timeout_s)
        lost = self._queue.running_executors() - alive
        if lost:
            self._recover(lost)

    def _recover(self, executor_ids: set[str]) -> None:
        crashed = _failure(JobCrashedError(stage="computed"))
        if count := self._queue.recover(executor_ids, crashed):
            logs.get().warning("predictions.taken_over", instance_count=count)

    def watch(self) -> None:
        """Record how far the computation is, and stop it when its result is no longer wanted."""
        run = self._run
        if run is None or run.stopped.is_set():
            return
        if not self._queue.note_progress(run.row, run.windows_done, run.window_count):
            run.stopped.set()

    def end(self) -> None:
        """Stop what runs and take nothing more."""
        self._ending.set()
        if self._run is not None:
            self._run.stopped.set()

    def _pass(self, boundary: str) -> None:
        if self._boundary is not None:
            self._boundary(boundary)

    def _perform(self, row: PredictionRow) -> None:
        """Compute one prediction; delete its files where no answer is left to be fetched."""
        self._run = run = _Run(row=row)
        self._pass("predict:start")
        try:
            is_kept = self._answer(run)
        except PredictionStoppedError:
            is_kept = self._ending.is_set() and self._queue.put_back(row)
        except SQLAlchemyError:
            raise  # the next look takes it up again
        except Exception as error:  # noqa: BLE001 - one prediction; its neighbours go on
            is_kept = self._fail(row, error)
        finally:
            self._run = None
        if not is_kept:
            self._spool.drop_prediction(row.prediction_id)

    def _answer(self, run: _Run) -> bool:
        manifest = self._model.manifest
        folder = self._spool.prediction_folder(run.row.prediction_id)
        source = _input_of(folder)
        prediction = predict(
            nifti.read_channels(source, manifest.roles),
            self._model,
            reference_role=manifest.space.reference_role,
            progress=run.progress,
            stop=run.stopped.is_set,
        )
        remark = json.dumps(content(manifest, prediction), ensure_ascii=False)
        if run.stopped.is_set():
            return False
        self._spool.publish(
            folder / ANSWER_NAME,
            lambda part: nifti_answer.write_answer(
                prediction.label_map, source, part, remark=remark
            ),
        )
        self._pass("predict:written")
        self._queue.note_progress(run.row, run.windows_done, run.window_count)
        notes = _notes(prediction.notes)
        is_kept = self._queue.finish(run.row, model_id=manifest.model_id, notes=notes)
        if is_kept:
            logs.get().info("prediction.done", model_id=manifest.model_id, **_size(run))
        return is_kept

    def _fail(self, row: PredictionRow, error: Exception) -> bool:
        known = disposition.coded(error)
        what = disposition.of(known)
        if self._queue.fail(row, _failure(known)):
            log = logs.get().bind(code=known.code, sentence=str(known), place=logs.place_of(error))
            (log.info if what is Disposition.REJECT else log.error)("prediction.failed")
        return False


def _size(run: _Run) -> dict[str, int]:
    return {"window_count": run.window_count, "byte_count": run.row.byte_count}


def _input_of(folder: Path) -> Path:
    for name in INPUT_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise SpoolUnwritableError(reason="the upload is gone")


def _failure(error: CodedError) -> Failure:
    return Failure(
        code=error.code,
        sentence=str(error),
        advice=error.advice,
        disposition=disposition.of(error).value,
    )


def _notes(notes: Sequence[Note]) -> list[dict[str, str]]:
    return [{"code": note.code, "sentence": note.sentence} for note in notes]


def content(manifest: Manifest, prediction: Prediction) -> dict[str, Any]:
    """Return what the answer's header extension says, as JSON takes it."""
    return {
        "notice": _NOTICE,
        "model_id": manifest.model_id,
        "title": manifest.title,
        "demonstration": manifest.is_demonstration,
        "labels": [
            {"value": one.number, "name": one.label, "code": one.type_code.model_dump()}
            for one in manifest.labels
        ],
        "regions": [
            {"values": list(one.labels), "name": one.label, "code": one.type_code.model_dump()}
            for one in manifest.regions
        ],
        "notes": _notes(prediction.notes),
    }
