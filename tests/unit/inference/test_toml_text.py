"""What is written as TOML reads back the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import toml_text

ROOT = Path(__file__).parents[3] / "models"

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), WORDS, st.just("")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_any_content_reads_back_the_same(content: dict[str, object]) -> None:
    assert tomllib.loads(toml_text.dumps(content)) == content


def test_manifests_read_back_the_same() -> None:
    for file in (ROOT / "demo-glioma/model.toml", *sorted((ROOT / "templates").glob("*.toml"))):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        assert tomllib.loads(toml_text.dumps(content)) == content


def test_none_is_left_out_and_the_rest_refused() -> None:
    assert toml_text.dumps({"a": None, "b": 1}) == "b = 1\n"
    with pytest.raises(TypeError):
        toml_text.dumps({"a": object()})
