"""Swapped series are caught, correct ones are not."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from converters import phantom
from converters.phantom import Lesion
from converters.phantom_scanner import BRAIN_CENTRE_LPS_MM
from converters.volume import Volume
from inference import plausibility
from inference.errors import ChannelImplausibleError

Samples = dict[str, NDArray[np.float32]]

BIG = Lesion(centre_mm=(30.0, -20.0, 20.0), radius_mm=30.0, oedema_mm=25.0)
STUDIES: dict[str, tuple[int, tuple[Lesion, ...] | None]] = {
    "usual": (0, None),
    "large_flair_lesion": (2, (BIG,)),
    "healthy": (3, ()),
}


def inside(volumes: Mapping[str, Volume]) -> Samples:
    """Return what each volume shows at points in the middle of the brain."""
    rng = np.random.default_rng(1)
    points = rng.uniform([-45.0, -60.0, -10.0], [45.0, 60.0, 45.0], (20000, 3))
    points = points + BRAIN_CENTRE_LPS_MM
    found: Samples = {}
    for role, volume in volumes.items():
        inverse = np.linalg.inv(volume.grid.index_to_lps_mm)
        at = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        last = np.subtract(volume.grid.shape, 1)
        found[role] = volume.intensities[tuple(np.clip(at, 0, last).T)]
    return found


@pytest.fixture(scope="module", params=STUDIES)
def samples(request: pytest.FixtureRequest) -> tuple[str, Samples]:
    seed, lesions = STUDIES[request.param]
    study = phantom.make_study(seed, size="small", lesions=lesions)
    return request.param, inside(study.volumes)


def swapped(samples: Samples, one: str, other: str) -> Samples:
    return {**samples, one: samples[other], other: samples[one]}


def test_a_correct_study_is_plausible(samples: tuple[str, Samples]) -> None:
    name, given = samples
    found = plausibility.judge(given)
    assert found.score is not None
    assert found.best_swap_score is not None
    assert found.score - found.best_swap_score > 0.3
    assert bool(found.doubt) == (name == "healthy")  # nothing enhances in it, no vessel either


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations(("flair", "t1", "t1gd", "t2"), 2))
)
def test_every_swap_of_two_is_refused(samples: tuple[str, Samples], one: str, other: str) -> None:
    name, given = samples
    exchanged = swapped(given, one, other)
    if name == "healthy" and {one, other} == {"t1", "t1gd"}:
        assert "without contrast agent" in plausibility.judge(exchanged).doubt
        return
    with pytest.raises(ChannelImplausibleError) as caught:
        plausibility.judge(exchanged)
    assert one in str(caught.value)
    assert other in str(caught.value)


@pytest.mark.parametrize("absent", ["flair", "t1", "t1gd", "t2"])
def test_with_one_series_missing_the_rest_is_plausible_and_a_swap_is_not(
    samples: tuple[str, Samples], absent: str
) -> None:
    given = {role: values for role, values in samples[1].items() if role != absent}
    found = plausibility.judge(given)
    assert found.score is not None
    assert found.best_swap_score is not None
    assert found.score > found.best_swap_score
    for one, other in itertools.combinations(given, 2):
        if {one, other} == {"t1", "t1gd"}:
            continue
        with pytest.raises(ChannelImplausibleError):
            plausibility.judge(swapped(given, one, other))


def test_a_non_enhancing_tumour_is_a_doubt_and_no_refusal() -> None:
    study = phantom.make_study(4, size="small", lesions=())
    given = inside(study.volumes)
    rng = np.random.default_rng(0)
    given["t1gd"] = given["t1"] + rng.normal(0.0, 5.0, given["t1"].shape).astype(np.float32)
    found = plausibility.judge(given)
    assert "without contrast agent" in found.doubt


def test_brightness_and_scale_of_a_series_do_not_matter(samples: tuple[str, Samples]) -> None:
    given = samples[1]
    louder = {role: 7.5 * values for role, values in given.items()}
    once, again = plausibility.judge(given), plausibility.judge(louder)
    assert again.score == pytest.approx(once.score, abs=1e-3)


def test_too_little_to_compare_says_nothing() -> None:
    rng = np.random.default_rng(0)
    few = {role: rng.random(50, dtype=np.float32) for role in ("t1", "t2")}
    assert plausibility.judge(few) == plausibility.Plausibility()
    other = {"ct": rng.random(5000, dtype=np.float32)}
    assert plausibility.judge(other) == plausibility.Plausibility()
    alone = {role: rng.random(5000, dtype=np.float32) for role in ("flair", "t2")}
    assert plausibility.judge(alone).score is None


def test_constant_and_empty_channels_break_nothing() -> None:
    flat = {role: np.zeros(5000, np.float32) for role in ("flair", "t1", "t1gd", "t2")}
    found = plausibility.judge(flat)
    assert (found.gain, found.loss) == (None, None)
