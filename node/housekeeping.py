"""No file of an upload outlives its use: what the web role sweeps."""

from __future__ import annotations

from node import logs
from node.prediction_queue import PredictionQueue
from node.spool import Spool


class Housekeeper:
    """Deletes what nobody will fetch any more.

    Parameters
    ----------
    queue : PredictionQueue
        Which predictions there are.
    spool : Spool
        Where their files lie.
    owner : str
        The web process's own name: what an earlier process of that name was receiving or waiting
        for is given up.
    keep_s : float
        How long an answer is kept for a client that did not wait for it.
    """

    def __init__(self, queue: PredictionQueue, spool: Spool, *, owner: str, keep_s: float) -> None:
        self._queue, self._spool, self._owner, self._keep_s = queue, spool, owner, keep_s

    def begin(self, *, is_alone: bool = True) -> None:
        """Give up what an earlier process left; call it before any upload is taken.

        Beside other web processes what is half written stays: it may be theirs.
        """
        if is_alone:
            self._spool.sweep_stowed()
        lost = self._queue.abandon(self._owner)
        if lost:
            logs.get().warning("predictions.abandoned", instance_count=lost)
        self.look()

    def look(self) -> None:
        """Forget what was kept long enough, and delete folders that nothing can be fetched from.

        A row is committed before its folder is made, so a folder without one is left over.
        """
        self._queue.forget_ended(older_than_s=self._keep_s)
        if found := self._spool.prediction_ids():
            for prediction_id in self._queue.without_files(found):
                self._spool.drop_prediction(prediction_id)
