"""The server's side of a connection: it waits for no peer for ever, and idle ones make room.

uvicorn waits without end for a request that does not come, for one whose head comes byte by byte
and for a client that does not read its answer; each of them would hold a file handle, of which a
process has a thousand.

References
----------
RFC 9112 9.5 (failures and timeouts). The body of a request is `node.web.body`'s.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from node import logs
from node.errors import RequestSlowError
from node.tls import ServerTls, common_name
from node.web import problems

HEAD_S: Final = 15.0
"""The longest time for the head of a request, and for the rest of one that is answered."""
STALL_S: Final = 60.0
"""The longest time without a byte of the answer being taken."""
MOST_CONNECTIONS: Final = 256
"""Held at once. Beyond them the one that waits longest for its request makes room."""


CERTIFICATE: Final = "certificate"
"""Where the state of a request has the name on the client's certificate."""
STOPPING: Final = "stopping"
"""Where it has the event that is set when the server stops: for answers that else had no end."""


def config(app: ASGIApp, tls: ServerTls | None = None) -> uvicorn.Config:
    """Return how an application is served."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS + 1,  # where none is idle: 503
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        ssl_context_factory=None if tls is None else lambda *_: tls.context,
    )


class Connection(H11Protocol):
    """One connection, with a deadline whenever it is the peer that has to do something."""

    head_s = HEAD_S
    stall_s = STALL_S
    most = MOST_CONNECTIONS

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _waits_since = 0.0
    _left_to_send = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        name = "" if tls is None else common_name(tls.getpeercert())
        self._stopping = asyncio.Event()
        self.app_state = {**self.app_state, CERTIFICATE: name, STOPPING: self._stopping}
        self._look()
        if len(self.connections) > self.most:
            self._make_room()

    def shutdown(self) -> None:
        """Let the answer come to its end."""
        self._stopping.set()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """End with all that is due."""
        self._stop_waiting()
        self._end_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what comes; it prolongs no deadline."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one."""
        super().on_response_complete()
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, also where a request began well and is being answered.

        Otherwise the application would answer once more, which is an error of ours.
        """
        if not self.is_waiting:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Give a peer that takes nothing its last time."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stall_s, self._give_answer_up)

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        self._end_stall()

    def _give_answer_up(self) -> None:
        """Cut the connection, without the kernel's trying to bring the rest of the answer."""
        at_once = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, at_once
        )
        self.drop("it takes no answer")

    def drop(self, reason: str) -> None:
        """Cut the connection."""
        logs.get().info("connection.dropped", reason=reason)
        self.transport.abort()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first request
        return cycle is None or cycle.response_complete

    def _look(self) -> None:
        if not self.is_waiting:
            self._stop_waiting()
        elif self._deadline is None:
            self._waits_since = self.loop.time()
            self._left_to_send = self.transport.get_write_buffer_size()
            self._deadline = self.loop.call_later(self.head_s, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        left = self.transport.get_write_buffer_size()
        if 0 < left < self._left_to_send:  # the answer is still being taken
            self._look()
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self._say_too_slow()
        self.drop("its request does not come")

    def _say_too_slow(self) -> None:
        """Answer a request of which a part has come; the answer may get lost with the rest."""
        answer = problems.problem(RequestSlowError(seconds=self.head_s))
        head = h11.Response(
            status_code=answer.status_code,
            headers=[*answer.raw_headers, (b"connection", b"close")],
        )
        self.transport.write(self.conn.send(head))
        self.transport.write(self.conn.send(h11.Data(data=bytes(answer.body))))
        self.transport.write(self.conn.send(h11.EndOfMessage()))

    def _make_room(self) -> None:
        """Drop the connection that has waited longest for its request, if any but this waits."""
        others = (cast("Connection", one) for one in self.connections if one is not self)
        waiting = [one for one in others if one.is_waiting and not one.transport.is_closing()]
        if waiting:
            min(waiting, key=lambda one: one._waits_since).drop("others need its place")  # noqa: SLF001 - of its own class

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
