"""STOW-RS: the request, the multipart body, the head of each file, its data set."""

from __future__ import annotations

from random import Random
from typing import Final

from node.receive.instance import Offer, file_meta
from tests.fuzz import seeds
from tests.fuzz.mutation import mutated
from tests.fuzz.web import TOKENS, Door, posted
from tests.stow_requests import BOUNDARY, CONTENT_TYPE, body

_PATHS: Final = (*("/dicom-web/studies",) * 6, "/dicom-web/studies/1.2.3", "/dicom-web/studies/%00")
_TOKENS: Final = (
    *TOKENS,
    f"\r\n--{BOUNDARY}\r\n".encode(),
    f"\r\n--{BOUNDARY}--\r\n".encode(),
    b"\r\nContent-Type: application/dicom\r\n\r\n",
    *(b"DICM", b"\2\0\0\0UL\4\0", b"\2\0\1\0OB\0\0\xff\xff\xff\xff"),
)


class Stores(Door):
    """One to three DICOM files by ``POST /dicom-web/studies`` with something wrong anywhere."""

    name = "stow"

    def make(self, rng: Random) -> bytes:
        """Return a request with something wrong in it."""
        files = [_file(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
        place = rng.random()
        if place < 0.4:
            at = rng.randrange(len(files))
            files[at] = mutated(files[at], rng, _TOKENS)
        sent = body(files)
        if 0.4 <= place < 0.7:
            sent = mutated(sent, rng, _TOKENS)
        whole = posted(rng.choice(_PATHS), sent, CONTENT_TYPE, rng)
        return mutated(whole, rng, _TOKENS) if 0.7 <= place < 0.95 else whole


def _file(rng: Random) -> bytes:
    """Return a file of a seed, its head ours."""
    one = rng.choice(seeds.instances())
    offer = Offer(
        sop_class_uid=_ascii(one.sop_class_uid),
        sop_instance_uid=_ascii(one.sop_instance_uid),
        transfer_syntax_uid=_ascii(one.syntax),
        calling_ae_title="PEER",
    )
    return file_meta(offer) + one.data


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")
