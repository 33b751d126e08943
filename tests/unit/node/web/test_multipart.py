"""One file out of a multipart body, wherever the network cuts it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.errors import CodedError
from node.errors import UploadInvalidError, UploadTooLargeError, UploadTypeError
from node.web import multipart
from node.web.multipart import UploadedFile

BOUNDARY = b"--frontier-7"
HEAD = b'Content-Disposition: form-data; name="file"; filename="x.nii.gz"\r\n'
TYPE = b"Content-Type: application/octet-stream\r\n"
ONE_DIRECTORY = [HealthCheck.function_scoped_fixture]


def _body(content: bytes, head: bytes = HEAD + TYPE, *, boundary: bytes = BOUNDARY) -> bytes:
    return b"--%b\r\n%b\r\n%b\r\n--%b--\r\n" % (boundary, head, content, boundary)


def _received(
    tmp_path: Path, pieces: list[bytes], *, limit_bytes: int = 10**6, boundary: bytes = BOUNDARY
) -> bytes:
    path = tmp_path / "input"
    path.unlink(missing_ok=True)
    with UploadedFile(boundary, path, limit_bytes=limit_bytes) as upload:
        for piece in pieces:
            upload.feed(piece)
        upload.finish(is_durable=False)
        found = path.read_bytes()
        assert upload.byte_count == len(found)
    return found


def _cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@settings(suppress_health_check=ONE_DIRECTORY, deadline=None)
@given(
    # pieces of the boundary are what a parser may stumble over
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--", BOUNDARY[:5], b"x", b"\0"]),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_a_file_comes_out_whole_wherever_it_is_cut(
    tmp_path: Path, parts: list[bytes], cuts: list[int]
) -> None:
    content = b"".join(parts)
    assert _received(tmp_path, _cut(_body(content), cuts)) == content


@settings(suppress_health_check=ONE_DIRECTORY, deadline=None)
@given(st.binary(min_size=1, max_size=3000), st.integers(1, 50))
def test_any_bytes_in_pieces_of_any_size_come_out_whole(
    tmp_path: Path, content: bytes, size: int
) -> None:
    body = _body(content)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert _received(tmp_path, pieces) == content


@settings(suppress_health_check=ONE_DIRECTORY, deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=3))
def test_any_other_body_is_refused_with_a_code(
    tmp_path: Path, body: bytes, cuts: list[int]
) -> None:
    with pytest.raises(CodedError):
        _received(tmp_path, _cut(body, cuts))


def test_a_body_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    body = _body(b"voxels").removesuffix(b"\r\n")
    for length in range(len(body)):
        with pytest.raises(UploadInvalidError):
            _received(tmp_path, [body[:length]])
    assert _received(tmp_path, [body]) == b"voxels"


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (HEAD.replace(b'"file"', b'"image"'), "another name"),
        (HEAD.replace(b"form-data", b"attachment"), "another name"),
        (TYPE, "another name"),
        (HEAD + b"X: " + b"y" * 100_000 + b"\r\n", "no multipart body"),
        (HEAD + b"X: y\r\n" * 1000, "no multipart body"),
    ],
)
def test_a_part_that_is_not_the_file_is_refused(tmp_path: Path, head: bytes, reason: str) -> None:
    with pytest.raises(UploadInvalidError, match=reason):
        _received(tmp_path, [_body(b"voxels", head)])


def test_a_second_part_is_refused(tmp_path: Path) -> None:
    twice = _body(b"voxels").removesuffix(b"--\r\n") + _body(b"more").removeprefix(b"--" + BOUNDARY)
    with pytest.raises(UploadInvalidError, match="second part"):
        _received(tmp_path, [twice])


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadInvalidError, match="empty"):
        _received(tmp_path, [_body(b"")])


def test_what_follows_the_last_boundary_is_passed_over(tmp_path: Path) -> None:
    assert _received(tmp_path, [_body(b"voxels"), b"epilogue"]) == b"voxels"


def test_the_limit_is_the_files_to_the_byte(tmp_path: Path) -> None:
    assert len(_received(tmp_path, [_body(b"v" * 100)], limit_bytes=100)) == 100
    with pytest.raises(UploadTooLargeError, match="more than 100 bytes"):
        _received(tmp_path, [_body(b"v" * 101)], limit_bytes=100)


def test_a_preamble_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodedError):
        _received(tmp_path, [b"x" * 1000] * 100, limit_bytes=100)


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"/etc/passwd", b"", b'\\"', b"x" * 900])
def test_what_the_client_calls_its_file_changes_nothing(tmp_path: Path, name: bytes) -> None:
    head = HEAD.replace(b"x.nii.gz", name)
    assert _received(tmp_path, [_body(b"voxels", head)]) == b"voxels"
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/octet-stream",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
    ],
)
def test_another_type_of_body_is_refused(content_type: str) -> None:
    with pytest.raises(UploadTypeError):
        multipart.boundary_of(content_type)


def test_the_boundary_is_read_with_and_without_quotes() -> None:
    assert multipart.boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert multipart.boundary_of('Multipart/Form-Data; charset=x; boundary="a b"') == b"a b"
