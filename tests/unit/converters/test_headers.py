"""The quick way through a file's header against pydicom's own."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from converters.errors import HeaderUnreadableError
from converters.headers import UNREADABLE, items_of, read_header
from tests.phantoms import WrittenStudy

SMALL = 400
IMAGES = Tag("ReferencedImageSequence")


@pytest.fixture(scope="module")
def content(small_study: WrittenStudy) -> bytes:
    """Return an instance with a sequence and private elements."""
    ds = dcmread(small_study.files.paths["flair"][5])
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.add_new(0x00091001, "UN", b"private")
    ds.ReferencedImageSequence = [item, Dataset()]
    ds["ReferencedImageSequence"].is_undefined_length = True
    ds.RequestAttributesSequence = [item]
    block = ds.private_block(0x0029, "SOME VENDOR", create=True)
    block.add_new(0x10, "OB", b"\0" * 100)
    ds.PixelData = bytes(8)
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _assert_like_pydicom(path: Path) -> None:
    """Compare everything that can be seen of both, or that both refuse."""
    try:
        wanted = dcmread(path, stop_before_pixels=True)
    except UNREADABLE:
        with pytest.raises(HeaderUnreadableError):
            read_header(path, instance=0)
        return
    found = read_header(path, instance=0)
    assert list(found.keys()) == list(wanted.keys())
    assert found.original_character_set == wanted.original_character_set
    for tag in wanted.keys():  # noqa: SIM118 - elements are converted when a data set is iterated
        one: object = found.get_item(tag, keep_deferred=True)
        other: object = wanted.get_item(tag, keep_deferred=True)
        if isinstance(one, RawDataElement) and isinstance(other, RawDataElement):
            assert one == other


@pytest.mark.parametrize(
    "characters", [None, "", "ISO_IR 100", "ISO_IR 192", ["", "ISO 2022 IR 87"], "made up"]
)
@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about what is made up
def test_a_header_is_the_one_that_pydicom_reads(
    characters: str | list[str] | None, content: bytes, tmp_path: Path
) -> None:
    ds = dcmread(BytesIO(content))
    del ds.SpecificCharacterSet
    if characters is not None:
        ds.SpecificCharacterSet = characters
    ds.PatientName = "A^B"
    ds.StudyDescription = "plain"
    path = tmp_path / "x.dcm"
    ds.save_as(path, enforce_file_format=True)
    _assert_like_pydicom(path)
    found, wanted = read_header(path, instance=0), dcmread(path, stop_before_pixels=True)
    assert found == wanted
    assert found.file_meta == wanted.file_meta


def test_a_name_in_its_own_character_set_is_read_as_such(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    ds = dcmread(small_study.files.paths["flair"][0])
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyDescription = "Sch\u00e4del"
    ds.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert read_header(tmp_path / "x.dcm", instance=0).StudyDescription == "Sch\u00e4del"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_sequences_come_back_whole(syntax: UID, content: bytes, tmp_path: Path) -> None:
    ds = dcmread(BytesIO(content))
    again = Dataset()
    again.update(ds)
    again.file_meta = ds.file_meta
    again.file_meta.TransferSyntaxUID = syntax
    again.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    found = read_header(tmp_path / "x.dcm", instance=0)
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    assert len(found.RequestAttributesSequence) == 1


def test_pixels_are_not_part_of_a_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(content)
    assert "PixelData" not in read_header(tmp_path / "x.dcm", instance=0)


@pytest.mark.parametrize(
    "odd",
    [
        b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0",
        b"\x09\x00\x10\x10OB\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0",
        b"\x08\x00\x05\x00US\0\0",
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x01\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's own complaint about the character set
def test_what_is_unusual_is_left_to_pydicom(odd: bytes, content: bytes, tmp_path: Path) -> None:
    at = content.index(b"\x08\x00\x08\x00CS")
    path = tmp_path / "x.dcm"
    path.write_bytes(content[:at] + odd + content[at:])
    _assert_like_pydicom(path)


@pytest.mark.parametrize("is_open", [False, True])
def test_items_are_those_that_pydicom_reads(
    content: bytes, tmp_path: Path, *, is_open: bool
) -> None:
    ds = nested(content, depth=3)
    if is_open:
        ds["ReferencedImageSequence"].is_undefined_length = True
        ds.ReferencedImageSequence[0].is_undefined_length_sequence_item = True
    path = saved(ds, tmp_path / "x.dcm")
    wanted = list(dcmread(path).ReferencedImageSequence)
    found = items_of(read_header(path, instance=0), IMAGES, instance=0)
    assert found == wanted
    assert str(found[0].PatientName) == "B\u00e4r"


def nested(content: bytes, depth: int) -> Dataset:
    """Return the content with sequences within sequences."""
    ds = dcmread(BytesIO(content))
    ds.SpecificCharacterSet = "ISO_IR 192"
    inner = Dataset()
    inner.PatientName, inner.ReferencedSOPInstanceUID = "B\u00e4r", "1.2.3"
    for _ in range(depth - 1):
        outer = Dataset()
        outer.PatientName = "B\u00e4r"
        outer.ReferencedImageSequence = [inner, Dataset()]
        inner = outer
    ds.ReferencedImageSequence = [inner]
    return ds


def saved(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


def test_the_deepest_sequences_are_left_to_pydicom(content: bytes, tmp_path: Path) -> None:
    ds = nested(content, depth=20)
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
    _assert_like_pydicom(saved(ds, tmp_path / "x.dcm"))


def test_what_is_no_sequence_has_no_items(content: bytes, tmp_path: Path) -> None:
    header = read_header(saved(nested(content, depth=1), tmp_path / "x.dcm"), instance=0)
    for keyword in ("PatientName", "AdmittingDiagnosesCodeSequence", "SpecificCharacterSet"):
        assert items_of(header, Tag(keyword), instance=0) == []
    assert header.PatientName
    assert items_of(header, Tag("PatientName"), instance=0) == []
    header[IMAGES] = RawDataElement(IMAGES, "SQ", 0, None, 0, False, True)  # noqa: FBT003
    assert items_of(header, IMAGES, instance=0) == []


@pytest.mark.parametrize(
    "junk",
    [
        b"\xfe\xff\x00\xe0\xff\0\0\0",
        b"\xfe\xff\x00\xe0\x04\0\0\0junk",
        b"\xff" * 9,
        b"\xfe\xff\x00",
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's own complaints
def test_items_that_are_damaged_are_refused_or_read_as_pydicom_does(
    junk: bytes, content: bytes, tmp_path: Path
) -> None:
    header = read_header(saved(nested(content, depth=1), tmp_path / "x.dcm"), instance=4)
    header[IMAGES] = RawDataElement(IMAGES, "SQ", len(junk), junk, 0, False, True)  # noqa: FBT003
    try:
        found = items_of(header, IMAGES, instance=4)
    except HeaderUnreadableError as error:
        assert error.evidence["instance"] == 4  # noqa: PT017 - either of both is right
    else:
        assert found == list(header[IMAGES].value)


def test_a_sequence_that_never_ends_is_refused(content: bytes, tmp_path: Path) -> None:
    at = content.index(b"\x08\x00\x08\x00CS")
    path = tmp_path / "x.dcm"
    path.write_bytes(content[:at] + b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff")
    with pytest.raises(HeaderUnreadableError, match="OSError"):
        read_header(path, instance=0)


@pytest.mark.filterwarnings("ignore")  # pydicom's own complaints; production logs only their place
@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_mangled_headers_are_read_like_pydicom_reads_them(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mangled = bytearray(content)
    head = content.index(b"\xe0\x7f\x10\x00") + 12
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, SMALL), st.integers(0, head)))
        junk = data.draw(st.one_of(st.binary(min_size=1, max_size=6), st.just(b"\xff" * 4)))
        mangled[at : at + len(junk)] = junk
    cut = data.draw(st.one_of(st.none(), st.integers(0, head)))
    path = tmp_path_factory.mktemp("mangled") / "x.dcm"
    path.write_bytes(bytes(mangled[:cut]))
    _assert_like_pydicom(path)
