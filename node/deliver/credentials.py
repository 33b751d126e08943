"""Secrets for a destination, of the settings or of the file that holds them."""

from __future__ import annotations

from typing import Final

from pydantic import SecretStr

from node import secret_files
from node.door_errors import SecretAbsentError
from node.peers import Destination

_LENGTH: Final = 8192


def secret_of(destination: Destination, value: SecretStr, file: str) -> str:
    """Return a secret of the settings, or the first line of the file that holds it.

    Raises
    ------
    SecretAbsentError
        The file cannot be read, or holds none.
    """
    if not file:
        return value.get_secret_value()
    try:
        found = secret_files.read(file, _LENGTH)
    except (OSError, UnicodeDecodeError) as error:
        raise SecretAbsentError(destination=destination.name) from error
    if not found:
        raise SecretAbsentError(destination=destination.name)
    return found
