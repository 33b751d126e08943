"""The body of a request, taken in blocks and never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from node import pace
from node.errors import UploadSlowError

BLOCK_BYTES: Final = 2**18
_DRAINED_BYTES: Final = 64 * 2**20
_DRAINED_S: Final = 5.0


class Body:
    """A request's body.

    Parameters
    ----------
    request : Request
        Whose body nobody has read yet.
    silence_s : float
        The longest time without a byte of it; after that time it needs a kilobyte a second, too.
    patience_s : float
        The longest time for all of it.
    """

    def __init__(self, request: Request, *, silence_s: float, patience_s: float) -> None:
        self._receive = request.receive
        self._silence_s, self._patience_s = silence_s, patience_s
        # A client that asks first has sent nothing, and reading would tell it to.
        self._is_sent = "100-continue" not in request.headers.get("expect", "").lower()
        self._is_whole = False

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body in blocks of about a quarter of a megabyte.

        Raises
        ------
        UploadSlowError
            It comes too slowly.
        ClientDisconnect
            The client has gone.
        """
        self._is_sent = True
        began, byte_count = time.monotonic(), 0
        gathered = bytearray()
        while not self._is_whole:
            piece = await self._piece()
            gathered += piece
            byte_count += len(piece)
            self._check_pace(byte_count, time.monotonic() - began)
            if len(gathered) >= BLOCK_BYTES or self._is_whole:
                yield bytes(gathered)
                gathered.clear()

    async def whole(self, limit_bytes: int) -> bytes | None:
        """Return the body; None where it is longer than it may be."""
        sent = bytearray()
        async for block in self.blocks():
            sent += block
            if len(sent) > limit_bytes:
                await self.drain()
                return None
        return bytes(sent)

    def _check_pace(self, byte_count: int, seconds: float) -> None:
        """Refuse what holds a place in the queue with a byte now and then."""
        if seconds > self._patience_s:
            raise UploadSlowError(state="not whole after", seconds=self._patience_s)
        if pace.is_too_slow(byte_count, seconds, self._silence_s):
            raise UploadSlowError(state="nearly silent for", seconds=seconds)

    async def drain(self) -> None:
        """Read what a refused client is still sending: it looks for the answer afterwards only.

        Closing the connection instead would lose the answer on the way.
        """
        left = _DRAINED_BYTES if self._is_sent else 0
        try:
            async with asyncio.timeout(_DRAINED_S):
                while not self._is_whole and left > 0:
                    left -= len(await self._piece())
        except (TimeoutError, UploadSlowError, ClientDisconnect):
            self._is_whole = True

    async def _piece(self) -> bytes:
        try:
            async with asyncio.timeout(self._silence_s):
                message = await self._receive()
        except TimeoutError as error:
            raise UploadSlowError(state="silent for", seconds=self._silence_s) from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._is_whole = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece
