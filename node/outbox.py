"""What people are to be told, and who has taken it: rows of the ledger that the work role sends.

`node.moving` records an event in the transaction that makes it true. Here it is addressed to every
channel once, then each channel takes what is due, sends it and says how that ended. Whoever dies
in between leaves a row that is due again after its lease: it is sent again under the same id.

Waits are kept as sums and moments by the database's clock. A moment further away than any wait can
be was made by a clock that has been set back since, and is due.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row

from node import database, rows, tables
from node.cases import Event

_told, _send = tables.notification, tables.notification_send
_KIND: Final[Sequence[sa.Column[Any]]] = (_told.c.event, _told.c.code, _told.c.destination)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that people are told: where, what, when, and nothing of the patient.

    `event` is one of `Event`, or that of a test; `destination` is named where a delivery was given
    up. The same event has the same id however often it is sent. `count` is how many of its kind
    the notice stands for, itself the first.
    """

    notification_id: str
    event: str
    case_id: str | None
    destination: str | None = None
    code: str | None
    happened_at: datetime
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A notice on its way to one channel: the attempt of that number, after so long a wait."""

    notice: Notice
    channel: str
    attempt: int
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a notice stands with a channel; `channel` is None where nobody was to be told.

    `is_routed` is False while it waits for others of its kind.
    """

    notice: Notice
    is_routed: bool
    channel: str | None
    attempt_count: int
    next_at: datetime | None
    sent_at: datetime | None
    given_up_at: datetime | None
    sentence: str | None


class Outbox:
    """The notices, on the ledger's database.

    Parameters
    ----------
    engine : Engine
        The ledger's own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clock = database.clock(engine)

    def _reading(self) -> AbstractContextManager[Connection]:
        return database.reading(self._engine)

    def route(
        self, channels: Collection[str], events: Collection[Event], *, digest_s: float = 0.0
    ) -> int:
        """Address what was recorded since to every channel; return how many events there were.

        The first event of a kind goes at once. Those that follow within `digest_s` wait for its
        end and are one notice, the first of them, which says how many there are. What nobody wants
        to be told is settled by it, and what waits for a channel that is no longer there is given
        up.
        """
        is_orphaned = (*_open(), _send.c.channel.not_in(channels))
        with self._reading() as connection:
            due = self._due(connection, digest_s)
            orphan = connection.execute(sa.select(_send.c.channel).where(*is_orphaned)).first()
        if not due and orphan is None:
            return 0
        with self._engine.begin() as connection:
            connection.execute(
                _send.update()
                .where(*is_orphaned)
                .values(given_up_at=self._clock, sentence="the channel was taken away")
            )
            due = self._due(connection, digest_s)
            now = connection.execute(sa.select(self._clock)).scalar_one()
            ids = [row.notification_id for row in due]
            is_due = _told.c.notification_id.in_(ids)
            connection.execute(_told.update().where(is_due).values(routed_at=now))
            heads = {_kind(row): row for row in reversed(due)}.values() if digest_s else due
            values = [
                {"notification_id": row.notification_id, "channel": channel, "next_at": 0.0}
                for row in heads
                if row.event in [event.value for event in events]
                for channel in channels
            ]
            if values:
                connection.execute(_send.insert(), values)
        return len(due)

    def _due(self, connection: Connection, digest_s: float) -> list[Row[Any]]:
        """Return what is to be addressed now, the oldest first."""
        age_s = self._clock - _told.c.routed_at
        query = sa.select(*_KIND).where(age_s >= 0.0, age_s < digest_s).distinct()
        quiet = {_kind(row) for row in connection.execute(query)} if digest_s else set()
        new = connection.execute(
            sa.select(_told.c.notification_id, *_KIND)
            .where(_told.c.routed_at.is_(None))
            .order_by(_told.c.happened_at, _told.c.notification_id)
        )
        return [row for row in new if _kind(row) not in quiet]

    def take(self, channel: str, *, lease_s: float, longest_s: float) -> Sending | None:
        """Return what is due on a channel, the oldest first; None when nothing is.

        Parameters
        ----------
        channel : str
            Whose.
        lease_s : float
            How long it is left to the caller alone.
        longest_s : float
            The longest wait that there is.
        """
        far_s = max(lease_s, longest_s) + lease_s
        is_due = (
            *_open(),
            _send.c.channel == channel,
            sa.or_(_send.c.next_at <= self._clock, _send.c.next_at > self._clock + far_s),
        )
        first = (
            sa.select(_send.c.notification_id)
            .join(_told, _told.c.notification_id == _send.c.notification_id)
            .where(*is_due)
            .order_by(_told.c.happened_at, _told.c.notification_id)
            .limit(1)
        )
        with self._reading() as connection:
            own = connection.execute(first).scalar()
        if own is None:
            return None
        with self._engine.begin() as connection:
            taken = connection.execute(
                _send.update()
                .where(_send.c.notification_id == own, *is_due)
                .values(next_at=self._clock + lease_s, attempt_count=_send.c.attempt_count + 1)
                .returning(_send.c.attempt_count, _send.c.waited_s)
            ).first()
            if taken is None:  # another process was faster
                return None
            whole = sa.select(_told, _count()).where(_told.c.notification_id == own)
            row = connection.execute(whole).one()
        return Sending(
            notice=_notice(row),
            channel=channel,
            attempt=taken.attempt_count,
            waited_s=taken.waited_s,
        )

    def note_sent(self, sending: Sending) -> None:
        """Record that a channel has taken it; it is never sent there again."""
        self._end(sending, sent_at=self._clock, sentence=None)

    def note_failed(self, sending: Sending, sentence: str, *, wait_s: float | None) -> None:
        """Record that a channel has not taken it, and how long to wait; None: it is given up."""
        values: dict[str, Any] = {"given_up_at": self._clock}
        if wait_s is not None:
            values = {"next_at": self._clock + wait_s, "waited_s": sending.waited_s + wait_s}
        self._end(sending, sentence=sentence, **values)

    def _end(self, sending: Sending, **values: Any) -> None:  # noqa: ANN401
        with self._engine.begin() as connection:
            connection.execute(
                _send.update()
                .where(
                    _send.c.notification_id == sending.notice.notification_id,
                    _send.c.channel == sending.channel,
                    *_open(),
                )
                .values(**values)
            )

    def recent(self, limit: int) -> list[Told]:
        """Return how the newest notices stand with each channel, newest first."""
        query = (
            sa.select(_told, _count(), *(one for one in _send.c if one.name != "notification_id"))
            .join(_send, _send.c.notification_id == _told.c.notification_id, isouter=True)
            .where(sa.not_(_is_counted(_told)))
            .order_by(_told.c.happened_at.desc(), _told.c.notification_id, _send.c.channel)
            .limit(limit)
        )
        with self._reading() as connection:
            return [_told_of(row) for row in connection.execute(query)]


def _kind(row: Row[Any]) -> tuple[str, str, str | None]:
    return row.event, row.code, row.destination


def _are_alike(one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[bool]:
    """Say whether two events are of one kind and were addressed together."""
    return sa.and_(
        one.c.notification_id != other.c.notification_id,
        one.c.routed_at == other.c.routed_at,
        *(one.c[column.name].is_not_distinct_from(other.c[column.name]) for column in _KIND),
    )


def _is_addressed(one: sa.FromClause) -> sa.ColumnElement[bool]:
    sent = _send.alias()
    return sa.exists().where(sent.c.notification_id == one.c.notification_id)


def _is_counted(one: sa.FromClause) -> sa.ColumnElement[bool]:
    """Say whether another notice stands for an event."""
    head = _told.alias()
    is_told = sa.exists().where(_are_alike(one, head), _is_addressed(head))
    return sa.and_(sa.not_(_is_addressed(one)), is_told)


def _count() -> sa.ColumnElement[int]:
    """Return how many events a notice stands for."""
    other = _told.alias()
    rest = sa.select(sa.func.count()).select_from(other)
    alone = sa.not_(_is_addressed(other))
    return (1 + rest.where(_are_alike(_told, other), alone).scalar_subquery()).label("count")


def _open() -> tuple[sa.ColumnElement[bool], ...]:
    return _send.c.sent_at.is_(None), _send.c.given_up_at.is_(None)


def _notice(row: Row[Any]) -> Notice:
    return Notice(**rows.values_of(row, Notice))


def _told_of(row: Row[Any]) -> Told:
    moments = rows.times_of(row, ("next_at", "sent_at", "given_up_at"))
    is_over = row.sent_at is not None or row.given_up_at is not None
    return Told(
        notice=_notice(row),
        is_routed=row.routed_at is not None,
        channel=row.channel,
        attempt_count=row.attempt_count or 0,
        next_at=None if is_over else moments["next_at"],
        sent_at=moments["sent_at"],
        given_up_at=moments["given_up_at"],
        sentence=row.sentence,
    )
