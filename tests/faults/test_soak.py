"""What the soak of `make faults` calls flat; the soak itself takes minutes."""

from __future__ import annotations

import pytest

from tests.faults.soak import Sample, held

_MB = 2**20


def _samples(
    *, kb_a_study: float = 0.0, handles: float = 0.0, threads: float = 0.0
) -> list[Sample]:
    """Return an hour's samples of a process that grows by so much with each study."""
    return [
        Sample(
            studies=studies,
            memory_bytes=int(100 * _MB + 30 * _MB * min(studies, 50) / 50)  # caches fill
            + int(kb_a_study * 1024 * studies)
            + 3 * _MB * (studies % 2),  # and there is work under way
            handles=20 + studies % 3 + int(handles * studies),
            threads=8 + studies % 2 + int(threads * studies),
        )
        for studies in range(300)
    ]


def test_a_process_that_has_filled_its_caches_is_flat() -> None:
    assert held("work", _samples()).is_flat


@pytest.mark.parametrize(
    "leak", [{"kb_a_study": 40.0}, {"handles": 0.05}, {"threads": 0.05}], ids=str
)
def test_a_process_that_leaks_is_found_out(leak: dict[str, float]) -> None:
    assert not held("work", _samples(**leak)).is_flat
