"""However the instances of several studies come, the cases are the same: by a real ledger."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as configured
from hypothesis import strategies as st
from pydicom import dcmread

from converters import phantom
from inference import manifest as manifests
from inference.declarations import MissingInput
from node import assemble, closing
from node.assemble import Decision, Refuse
from node.cases import ReceivedInstance
from node.facts import FactReader
from node.ledger import Ledger
from node.settings import Assemble
from node.spool import Spool
from tests import phantoms
from tests.nodes import MODEL

MANIFEST = manifests.load(MODEL).model_copy(update={"missing_input": MissingInput()})
RULES = closing.rules_of(MANIFEST, Assemble())
_MEMORY = Path("/dev/shm")  # where it exists: thousands of transactions are synced
START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
KINDS = ("whole", "no t2", "hole in t1")


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    return Spool(tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module")
def sent(spool: Spool) -> list[ReceivedInstance]:
    """Return the instances of three studies, their files in the spool: one whole, two not."""
    return [one for seed, kind in enumerate(KINDS) for one in _study(seed, kind, spool)]


def _study(seed: int, kind: str, spool: Spool) -> Iterable[ReceivedInstance]:
    folder = spool.root / str(seed)
    files = phantom.write_study(phantom.make_study(seed, size="small"), folder)
    paths = dict(files.paths)
    if kind == "no t2":
        del paths["t2"]
    if kind == "hole in t1":
        paths["t1"] = phantoms.missing_slice(paths["t1"], folder / "hole")
    for path in itertools.chain(*paths.values()):
        ds = dcmread(path, stop_before_pixels=True)
        yield ReceivedInstance(
            study_instance_uid=ds.StudyInstanceUID,
            series_instance_uid=ds.SeriesInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            sop_instance_uid=ds.SOPInstanceUID,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            calling_ae_title="TEST",
            path=str(path.relative_to(spool.root)),
            byte_count=path.stat().st_size,
            sha256=f"{len(ds.SOPInstanceUID):064d}",
            received_at=START,
        )


@pytest.fixture(scope="module")
def reader(spool: Spool) -> FactReader:
    """Return a reader that remembers the whole studies, so that examples are cheap."""
    return FactReader(spool)


@pytest.fixture(scope="module")
def wanted(sent: list[ReceivedInstance], reader: FactReader) -> dict[str, object]:
    """Return what becomes of each study when it comes in order and at once."""
    return _decided([sent], reader)


def _decided(
    associations: Iterable[list[ReceivedInstance]], reader: FactReader
) -> dict[str, object]:
    """Return the decision on each study that came through associations one after the other."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")
        for number, many in enumerate(associations):
            at = START + timedelta(seconds=number)
            for one in many:
                ledger.record_instance(_at(one, at), model_id=MANIFEST.model_id)
            studies = {one.study_instance_uid for one in many}
            ledger.record_release(studies, model_id=MANIFEST.model_id, released_at=at)
        found = {}
        for row in ledger.cases():
            assert row.revision == 1
            instances = ledger.study_instances(row.study_instance_uid)
            facts = reader.of(row.case_id, instances)
            now = row.last_received_at + timedelta(seconds=61)
            case = closing.open_case(row, ledger.choices(row.case_id))
            found[row.case_id] = _plain(assemble.decide(case, facts, RULES, now))
        ledger.close()
    return found


def _at(one: ReceivedInstance, at: datetime) -> ReceivedInstance:
    values = {name: getattr(one, name) for name in ReceivedInstance.__dataclass_fields__}
    return ReceivedInstance(**{**values, "received_at": at})


def _plain(decision: Decision) -> object:
    """Return what counts of a decision: not the moments at which the instances came."""
    if isinstance(decision, Refuse):
        return decision.error.code, str(decision.error), decision.decisions
    assert isinstance(decision, assemble.Close)
    members = {
        one.role: (one.series_instance_uid, one.part, [i.sop_instance_uid for i in one.instances])
        for one in decision.case.series
    }
    return decision.case.case_id, members, decision.case.reference_role, decision.decisions


def test_the_three_studies_end_as_they_should(wanted: dict[str, object]) -> None:
    codes = sorted(str(one[0]) for one in wanted.values() if isinstance(one, tuple))
    assert codes[1:] == ["GEOM_MISSING_SLICE", "STUDY_SEQUENCE_MISSING"] or codes[:2] == [
        "GEOM_MISSING_SLICE",
        "STUDY_SEQUENCE_MISSING",
    ]
    assert len(codes) == 3


@configured(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order_any_associations_and_repeats_give_the_same_cases(
    data: st.DataObject,
    sent: list[ReceivedInstance],
    reader: FactReader,
    wanted: dict[str, object],
) -> None:
    seed = data.draw(st.randoms(use_true_random=False))
    again = data.draw(st.integers(0, 40))
    order = [*sent, *seed.sample(sent, again)]
    seed.shuffle(order)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=6)))
    pieces = [
        order[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(order)]) if end > begin
    ]
    assert _decided(pieces, reader) == wanted
