"""Inputs that are nearly right: bytes, numbers and pieces exchanged by a seeded chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

_EXTREMES: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**24, 2**30)
_WIDE: Final = (2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_NUMBERS: Final = (b"0", b"-1", b"65536", b"2147483648", b"1e400", b"nan", b"9" * 25, b"", b"1,5")
_DIGITS: Final = re.compile(rb"[0-9]{1,20}")
_LONGEST: Final = 2**21

Mutation = Callable[[bytearray, Random], None]


def mutated(content: bytes, rng: Random, tokens: Sequence[bytes] = ()) -> bytes:
    """Return content with one to eight changes.

    Parameters
    ----------
    content : bytes
        A valid input, or one that is nearly so.
    rng : Random
        Decides; the same state gives the same change.
    tokens : sequence of bytes
        Pieces of the format's language, put in at any place.
    """
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        if tokens and rng.random() < 0.25:
            _put(changed, rng, rng.choice(tokens))
        else:
            rng.choice(_MUTATIONS)(changed, rng)
    return bytes(changed[:_LONGEST])


def _put(changed: bytearray, rng: Random, token: bytes) -> None:
    at = _place(changed, rng)
    end = at if rng.random() < 0.5 else at + len(token)
    changed[at:end] = token


def _place(changed: bytearray, rng: Random) -> int:
    """Return where: rather at the beginning, where the lengths and counts stand."""
    end = len(changed) if rng.random() < 0.5 else min(len(changed), 400)
    return rng.randrange(end)


def _flip(changed: bytearray, rng: Random) -> None:
    changed[_place(changed, rng)] ^= 1 << rng.randrange(8)


def _extreme(changed: bytearray, rng: Random) -> None:
    value = rng.choice(_EXTREMES + _WIDE)
    width = rng.choice([width for width in (1, 2, 4, 8) if value < 256**width])
    at = _place(changed, rng)
    changed[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))


def _random(changed: bytearray, rng: Random) -> None:
    at, count = _place(changed, rng), rng.randint(1, 8)
    changed[at : at + count] = rng.randbytes(count)


def _cut_out(changed: bytearray, rng: Random) -> None:
    at = _place(changed, rng)
    del changed[at : at + rng.choice((1, 2, 4, rng.randint(1, 200)))]


def _put_in(changed: bytearray, rng: Random) -> None:
    at = _place(changed, rng)
    changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, rng.randint(1, 200))))


def _repeat(changed: bytearray, rng: Random) -> None:
    at = _place(changed, rng)
    piece = changed[at : at + rng.randint(1, 300)]
    changed[at:at] = piece * rng.choice((1, 1, 2, 50))


def _move(changed: bytearray, rng: Random) -> None:
    at, count = _place(changed, rng), rng.randint(1, 100)
    piece = changed[at : at + count]
    del changed[at : at + count]
    to = rng.randint(0, len(changed))
    changed[to:to] = piece


def _cut_off(changed: bytearray, rng: Random) -> None:
    del changed[max(_place(changed, rng), 1) :]


def _number(changed: bytearray, rng: Random) -> None:
    found = list(_DIGITS.finditer(bytes(changed[:20_000])))
    if found:
        one = rng.choice(found)
        changed[one.start() : one.end()] = rng.choice(_NUMBERS)


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(_flip, _extreme, _random, _cut_out, _put_in, _repeat, _move, _cut_off, _number),
    *(_flip, _extreme),
)
