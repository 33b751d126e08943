"""Pulls that programs ask for, done by the work role one after the other.

Each is a row of the ledger (`node.pull_orders`); a process that dies in the middle leaves it to
the next one, and what is stored is not fetched again.
"""

from __future__ import annotations

import threading

from sqlalchemy.exc import SQLAlchemyError

from inference.manifest import Manifest
from node import closing, disposition, logs, model_set, peers, wado
from node.archives import Archive
from node.cases import Transport
from node.dimse_archive import DimseArchive
from node.disposition import Disposition
from node.door_errors import PullStoppedError
from node.ledger import Ledger
from node.pull import Plan, Puller
from node.pull_orders import PullOrders, PullRow, Tally
from node.receive.instance import Intake
from node.settings import Settings
from node.spool import PULLED, Spool


class Watcher:
    """What is told of a pull while it goes on; this one does nothing of it."""

    def planned(self, plan: Plan) -> None:
        """Know what is needed."""

    def progress(self, tally: Tally) -> None:
        """Know how far it is."""


class Pulling:
    """Does what is wanted; `look` is called again and again by one thread, `run` by anybody.

    Parameters
    ----------
    settings : Settings
        Of the node.
    spool, ledger : Spool, Ledger
        Where instances go.
    manifest : Manifest
        The first of the models that they are for.
    executor_id : str
        Who pulls, for the ledger.
    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        ledger: Ledger,
        manifest: Manifest,
        *,
        executor_id: str,
    ) -> None:
        self._settings, self._executor_id = settings, executor_id
        self.orders = PullOrders(ledger.engine, timeout_s=settings.jobs.heartbeat_timeout_s)
        intake = Intake(
            spool,
            ledger,
            model_id=manifest.model_id,
            limit_bytes=settings.receive.max_instance_bytes,
            door=PULLED,
        )
        further = model_set.further(settings)
        self._ledger, self._site = ledger, closing.site_of(manifest, settings, further)
        rules = [closing.rules_of(one, settings.assemble) for one in (manifest, *further)]
        self._puller = Puller(intake, spool, ledger, rules=rules, site=self._site)
        self._ending = threading.Event()

    def look(self) -> None:
        """Pull what is wanted and due, one study after the other."""
        while not self._ending.is_set() and self.orders.has_due(self._executor_id):
            row = self.orders.take(self._executor_id)
            if row is not None:
                self._perform(row)

    def end(self) -> None:
        """Leave what is being pulled where it is."""
        self._ending.set()

    def run(self, row: PullRow, watcher: Watcher | None = None) -> Tally:
        """Pull a study whose row this process has; return how much was.

        Raises
        ------
        PullSourceError
            The archive is no longer in the settings.
        NodeError
            See `Puller.plan` and `Puller.fetch`.
        """
        watcher = watcher or Watcher()
        archive = self._archive(row.source)

        def _goes_on(tally: Tally | None = None) -> bool:
            if tally is not None:
                watcher.progress(tally)
            return not self._ending.is_set() and self.orders.beat(row, tally)

        plan = self._puller.plan(archive, row.study_instance_uid, _goes_on)
        while True:
            counts = {uid: len(many) for uid, many in plan.instances.items()}
            if not self.orders.planned(row, counts, plan.tally):
                raise PullStoppedError
            watcher.planned(plan)
            tally = self._puller.fetch(archive, plan, _goes_on)
            wider = self._puller.widened(plan, tally)
            if wider is None:
                break
            plan = wider
        self.orders.finish(row, tally)
        return tally

    def _archive(self, name: str) -> Archive:
        settings = self._settings
        peer = peers.archive_of(settings.source, settings.destinations, name)
        if peer.transport is Transport.STOW:
            return wado.Archive(peer, limit_bytes=settings.receive.max_instance_bytes)
        return DimseArchive(
            peer,
            calling_ae_title=settings.receive.ae_title,
            held=self._held,
            keywords={keyword for rule in self._site.rules for keyword in rule.where},
        )

    def _held(self, study: str) -> dict[str, int]:
        stored = self._ledger.study_instances(study)
        return {one.sop_instance_uid: one.byte_count for one in stored}

    def _perform(self, row: PullRow) -> None:
        try:
            tally = self.run(row)
        except SQLAlchemyError:
            raise  # the next look takes it up again
        except PullStoppedError:
            self.orders.put_back(row)
        except Exception as error:  # noqa: BLE001 - one study; the others go on
            self.end_badly(row, error)
        else:
            logs.get().info(
                "study.pulled",
                series_count=tally.series_wanted,
                instance_count=tally.images_fetched,
                byte_count=tally.bytes_fetched,
            )

    def end_badly(self, row: PullRow, error: Exception, *, is_final: bool = False) -> None:
        """Note why a pull failed: for good, or until its next try."""
        known = disposition.coded(error)
        why = {"code": known.code, "sentence": str(known), "advice": known.advice}
        delivery = self._settings.delivery
        passes = disposition.of(known) in (Disposition.RETRY, Disposition.RETRY_BRIEFLY)
        limit = disposition.attempts_at_most(disposition.of(known), delivery)
        if passes and row.tries < limit and not is_final:
            delay_s = disposition.delay_s(row.tries, delivery)
            self.orders.put_off(row, delay_s, **why)
        else:
            self.orders.fail(row, **why)
        logs.get().warning(
            "pull.failed", code=known.code, sentence=str(known), place=logs.place_of(error)
        )
