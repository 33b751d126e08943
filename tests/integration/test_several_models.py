"""A study that several models work on: a case and results for each, or for those of its route."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from inference import manifest as manifests
from inference.manifest import Manifest
from node import model_set
from node.cases import CaseState
from node.closing import Closer
from node.demo.archive import DemoArchive
from node.errors import ConfigError
from node.jobs import Jobs
from node.ledger import Ledger
from node.pipeline import Parts
from node.settings import Settings
from node.spool import Spool
from tests import tiny_models
from tests.nodes import RunningNode, destination
from tests.peers import storescu
from tests.phantoms import WrittenStudy
from tests.stages import take_in

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two models that differ in their names alone."""
    folder = tmp_path_factory.mktemp("models")
    first, second = (
        tiny_models.written(folder / name, skull="any") for name in ("tiny", "tiny-two")
    )
    text = (second / "model.toml").read_text(encoding="utf-8")
    renamed = text.replace('id = "tiny"', 'id = "tiny-two"')
    (second / "model.toml").write_text(renamed, encoding="utf-8")
    return first, second


@pytest.fixture(scope="module")
def models(folders: tuple[Path, Path]) -> tuple[Manifest, Manifest]:
    first, second = map(manifests.load, folders)
    return first, second


def _settings(folders: tuple[Path, Path], *, shadow: bool = False, **more: Any) -> Settings:  # noqa: ANN401 - settings
    further = [{"folder": str(folders[1]), "shadow": shadow}]
    assemble = {"settle_s": 0.0, "quiet_s": 0.0}
    values = {"model": {"folder": str(folders[0])}, "further_models": further, **more}
    return Settings.model_validate({"assemble": assemble, **values})


def _closed(settings: Settings, spool: Spool, ledger: Ledger, jobs: Jobs) -> dict[str, CaseState]:
    manifest = manifests.load(settings.model.folder)
    further = model_set.further(settings)
    parts = Parts(settings=settings, ledger=ledger, spool=spool, manifest=manifest, further=further)
    closer = Closer(parts, jobs)
    for _ in range(2):
        closer.look()
    return {row.model_id: row.state for row in ledger.cases()}


def test_each_model_has_a_case_of_its_own_and_nothing_happens_twice(
    folders: tuple[Path, Path],
    models: tuple[Manifest, Manifest],
    small_study: WrittenStudy,
    spool: Spool,
    ledger: Ledger,
    jobs: Jobs,
) -> None:
    names = [one.model_id for one in models]
    take_in(small_study.interleaved, spool, ledger, model_id=names[0])
    settings = _settings(folders, shadow=True)
    assert [row.model_id for row in ledger.cases()] == names[:1]
    complete = dict.fromkeys(names, CaseState.COMPLETE)
    for _ in range(2):
        assert _closed(settings, spool, ledger, jobs) == complete
    routes = {row.model_id: ledger.route(row.case_id) for row in ledger.cases()}
    assert routes[names[0]] is None
    hidden = routes[names[1]]
    assert hidden is not None
    assert (hidden.rule, hidden.destinations) == ("shadow", ())
    assert len({row.case_id for row in ledger.cases()}) == 2


def test_a_route_names_the_models_that_work_on_a_study(
    folders: tuple[Path, Path],
    models: tuple[Manifest, Manifest],
    small_study: WrittenStudy,
    spool: Spool,
    ledger: Ledger,
    jobs: Jobs,
) -> None:
    first, second = models
    take_in(small_study.interleaved, spool, ledger, model_id=first.model_id)
    settings = _settings(folders, routes=[{"name": "second", "models": [second.id]}])
    found = _closed(settings, spool, ledger, jobs)
    assert found == {first.model_id: CaseState.CANCELLED, second.model_id: CaseState.COMPLETE}
    codes = {row.model_id: row.code for row in ledger.cases()}
    assert codes[first.model_id] == "ROUTE_OTHER_MODEL"


def test_two_models_of_one_name_and_a_route_to_none_are_refused(
    folders: tuple[Path, Path],
) -> None:
    with pytest.raises(ConfigError, match="same id"):
        model_set.further(_settings((folders[0], folders[0])))
    with pytest.raises(ConfigError, match="models is none of"):
        model_set.further(_settings(folders, routes=[{"name": "a", "models": ["nobody"]}]))


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[DemoArchive]:
    archive = DemoArchive(tmp_path / "pacs")
    archive.start()
    yield archive
    archive.stop()


def test_a_model_in_the_shadow_is_recorded_and_delivered_to_nobody(
    folders: tuple[Path, Path], small_study: WrittenStudy, pacs: DemoArchive, tmp_path: Path
) -> None:
    first, second = folders
    further = f"[[further_models]]\nfolder = '{second}'\nshadow = true\n"
    options = {"model": f"folder = '{first}'"}
    places = [destination("pacs", port=pacs.port), further]
    with RunningNode(tmp_path / "node", places, options=options) as node:
        node.wait_ready()
        sent = storescu([small_study.folder], port=node.dicom_port)
        assert sent.returncode == 0, sent.stderr
        cases = node.wait_states("delivered", 2)
        shown = {one["model_id"].partition("@")[0]: node.case(one["case_id"]) for one in cases}
        cards = node.get("/api/v1/models").json()["models"]
    assert shown["tiny-two"]["route"] == "shadow"
    assert (shown["tiny"]["receipts"] != [], shown["tiny-two"]["receipts"]) == (True, [])
    results = {
        name: {one["sop_instance_uid"] for one in case["results"]} for name, case in shown.items()
    }
    assert results["tiny"].isdisjoint(results["tiny-two"])
    held = {one.sop_instance_uid for one in pacs.instances()}
    assert held == results["tiny"]
    assert [(one["id"], one["is_loaded"]) for one in cards] == [("tiny", True), ("tiny-two", True)]
    assert all(dcmread(one.path).SOPInstanceUID in held for one in pacs.instances())
