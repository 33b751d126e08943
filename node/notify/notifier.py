"""Takes what is due from the outbox and sends it, a channel at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from node import disposition, logs
from node.errors import NotificationFailedError
from node.notify import mail, webhook
from node.outbox import Notice, Outbox, Sending
from node.peers import Notify

Channel: TypeAlias = Callable[[Notice], None]
"""Sends a notice or raises `NotificationFailedError`; comes back within a known time."""

_LEASE_S: Final = 300.0
"""Longer than any exchange: resolving a name, connecting, and `timeout_s` of a minute at most."""


def channels_of(notify: Notify) -> dict[str, Channel]:
    """Return the channels that have an address."""

    def _by_webhook(notice: Notice) -> None:
        webhook.send(notice, notify.webhook, page_url=notify.page_url, now=datetime.now(UTC))

    def _by_mail(notice: Notice) -> None:
        mail.send(notice, notify.email, page_url=notify.page_url)

    found: dict[str, Channel] = {}
    if notify.webhook.url:
        found[webhook.CHANNEL] = _by_webhook
    if notify.email.host:
        found[mail.CHANNEL] = _by_mail
    return found


class Notifier:
    """Sends what there is; `route` and, for each channel, `look` are called again and again.

    Parameters
    ----------
    outbox : Outbox
        What there is.
    notify : Notify
        Who wants to be told of what, and how long to try.
    boundary : callable, optional
        Called between sending and recording it; only tests give one, to crash there.
    lease_s : float
        How long a notice is left to a process that has taken it and may have died.
    """

    def __init__(
        self,
        outbox: Outbox,
        notify: Notify,
        boundary: Callable[[str], None] | None = None,
        *,
        lease_s: float = _LEASE_S,
    ) -> None:
        self._outbox, self._notify = outbox, notify
        self._boundary, self._lease_s = boundary, lease_s
        self._channels: Mapping[str, Channel] = channels_of(notify)

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels that there are."""
        return tuple(self._channels)

    def route(self) -> None:
        """Address what has happened since to the channels; with none, nobody is told of it."""
        notify = self._notify
        self._outbox.route(self.channels, notify.events, digest_s=notify.digest_s)

    def look(self, channel: str) -> bool:
        """Send one notice, the oldest that is due; False when there is none."""
        longest_s = self._notify.longest_delay_s
        sending = self._outbox.take(channel, lease_s=self._lease_s, longest_s=longest_s)
        if sending is None:
            return False
        try:
            self._channels[channel](sending.notice)
        except NotificationFailedError as error:
            self._failed(sending, error)
            return True
        if self._boundary is not None:
            self._boundary(f"notify:{channel}")
        self._outbox.note_sent(sending)
        logs.get().info(
            "notification.sent",
            channel=channel,
            case_id=sending.notice.case_id,
            kind=sending.notice.event,
            attempt=sending.attempt,
        )
        return True

    def _failed(self, sending: Sending, error: NotificationFailedError) -> None:
        wait_s = disposition.delay_s(sending.attempt, self._notify)
        is_over = sending.waited_s + wait_s > self._notify.deadline_s
        self._outbox.note_failed(sending, str(error), wait_s=None if is_over else wait_s)
        log = logs.get().bind(
            channel=sending.channel,
            case_id=sending.notice.case_id,
            kind=sending.notice.event,
            attempt=sending.attempt,
            code=error.code,
            sentence=str(error),
        )
        if is_over:
            log.error("notification.given_up")
        else:
            log.warning("notification.retried", delay_s=wait_s)
