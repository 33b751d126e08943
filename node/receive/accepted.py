"""What is taken in, whichever door it comes through: SOP classes and transfer syntaxes.

The lists are pynetdicom's, which is loaded when they are first asked for: the web role stays small
where nobody stores by STOW-RS.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from functools import cache

from node.errors import SopClassUnsupportedError, TransferSyntaxUnsupportedError


@cache
def storage_classes() -> tuple[str, ...]:
    """Return every storage class, in the library's order."""
    from pynetdicom import AllStoragePresentationContexts

    return tuple(str(one.abstract_syntax) for one in AllStoragePresentationContexts)


@cache
def transfer_syntaxes() -> tuple[str, ...]:
    """Return every transfer syntax in use.

    Instances are kept as they come; whether pixels can be decoded is seen when they are needed.
    """
    from pynetdicom import ALL_TRANSFER_SYNTAXES

    return tuple(str(uid) for uid in ALL_TRANSFER_SYNTAXES)


def check(sop_class_uid: str, transfer_syntax_uid: str) -> None:
    """Refuse what no presentation context offers.

    Raises
    ------
    SopClassUnsupportedError, TransferSyntaxUnsupportedError
        It is no storage class, or no transfer syntax that is known.
    """
    if sop_class_uid not in storage_classes():
        raise SopClassUnsupportedError
    if transfer_syntax_uid not in transfer_syntaxes():
        raise TransferSyntaxUnsupportedError
