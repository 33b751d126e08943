"""How fast a peer has to send: one that sends a byte now and then is never silent."""

from __future__ import annotations

from typing import Final

_LEAST_BYTES_A_SECOND: Final = 1024  # a hundredth of what the slowest link brings


def is_too_slow(byte_count: int, seconds: float, patience_s: float) -> bool:
    """Return whether what has come so far will take for ever.

    Parameters
    ----------
    byte_count : int
        What has come.
    seconds : float
        Within how long.
    patience_s : float
        How long a peer may be silent. Beyond it a kilobyte a second is asked for.
    """
    return byte_count < (seconds - patience_s) * _LEAST_BYTES_A_SECOND
