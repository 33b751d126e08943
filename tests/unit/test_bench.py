"""What the measurements stand on: ratios, slopes, the page's places, and models they can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import bench_ledger, comparison, engine_inputs
from tests.bench.comparison import Comparison


def _rates(name: str, ours: list[float], theirs: list[float]) -> Comparison:
    return Comparison(name=name, unit="instances/s", peer="storescp", ours=ours, theirs=theirs)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").mkdir()
    file = tmp_path / "performance.md"
    file.write_text("before\n<!-- bench one -->\nold\n<!-- end of bench one -->\nafter\n")
    monkeypatch.setattr(comparison, "_DOCS", tmp_path)
    monkeypatch.setattr(comparison, "_PAGE", file)
    monkeypatch.setattr(comparison, "_RATIOS", tmp_path / "performance.json")
    return file


def test_more_a_second_and_fewer_seconds_are_better() -> None:
    assert _rates("rate", [30.0, 10.0, 20.0], [10.0, 10.0, 10.0]).ratio == 2.0
    seconds = Comparison(name="time", unit="s", peer="dcm2niix", ours=[2.0], theirs=[1.0])
    assert seconds.ratio == 0.5


@pytest.mark.parametrize(("power", "named"), [(0.0, "0.00"), (1.0, "1.00"), (2.0, "2.00")])
def test_the_slope_is_the_exponent(power: float, named: str) -> None:
    counts = [10, 100, 1000]
    found = {"it": [3.0 * count**power for count in counts]}
    assert comparison.slope(counts, found["it"]) == pytest.approx(power)
    assert comparison.growth_table("s", counts, found, 1).endswith(f"| {named} |")
    assert f">{named}<" in comparison.growth_picture("growth", {"it": power})


def test_what_was_measured_takes_the_place_of_what_stood_there(page: Path) -> None:
    comparison.record("one", "Title", "<svg/>", "new")
    assert page.read_text() == (
        "before\n<!-- bench one -->\n![Title](images/bench-one.svg)\n\nnew\n"
        "<!-- end of bench one -->\nafter\n"
    )
    assert (page.parent / "images" / "bench-one.svg").read_text() == "<svg/>"
    with pytest.raises(SystemExit, match="has no place for two"):
        comparison.put("two", "new")


def test_the_guard_tells_a_ratio_that_fell_in_every_round(page: Path) -> None:
    assert page.exists()
    comparison.record_ratios([_rates("a", [10.0], [10.0]), _rates("b", [10.0], [10.0])])
    now = [
        _rates("a", [7.0, 7.9], [10.0, 10.0]),
        _rates("b", [7.0, 8.1], [10.0, 10.0]),
        _rates("never recorded", [1.0], [10.0]),
    ]
    assert [loss.split(":")[0] for loss in comparison.losses(now)] == ["a"]


@pytest.mark.parametrize("name", engine_inputs.NETWORKS)
@pytest.mark.parametrize("way", ["monai", "engine", "crop"])
def test_the_engine_is_measured_without_a_mask_network(name: str, way: engine_inputs.Way) -> None:
    assert not engine_inputs.declared(name, way, ()).needs_brain_for


def test_every_question_to_the_ledger_can_be_asked() -> None:
    found = bench_ledger.measure(4_000, 1)
    assert len(found) == 10
    assert all(milliseconds > 0 for milliseconds in found.values())
