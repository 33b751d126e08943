"""Every error of the project: its own code, a sentence that fills, a way to another process."""

from __future__ import annotations

import pickle
import re
from string import Formatter

import pytest

import converters.errors
import inference.errors
import node.door_errors
import node.errors
import node.work_errors
from converters.errors import CodedError, ConversionError, Evidence, MissingSliceError
from inference.errors import InferenceError
from node.errors import NodeError

MODULES = (converters.errors, inference.errors, node.errors, node.door_errors, node.work_errors)
ROOTS = (ConversionError, InferenceError, NodeError)


def _walk(kind: type[CodedError]) -> list[type[CodedError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _walk(below))]


EVERY = [kind for root in ROOTS for kind in _walk(root) if kind.sentence]


def example_of(kind: type[CodedError]) -> CodedError:
    """Return an error whose evidence fits its sentence."""
    evidence: dict[str, Evidence] = {
        name: 1.5 if (spec or "").endswith("f") else 3
        for _, name, spec, _ in Formatter().parse(kind.sentence)
        if name
    }
    return kind(**evidence)


def test_all_errors_descend_from_one_of_three_roots() -> None:
    assert set(CodedError.__subclasses__()) == set(ROOTS)


def test_only_bases_have_no_sentence() -> None:
    silent = {kind for root in ROOTS for kind in _walk(root) if not kind.sentence}
    assert all(kind.__subclasses__() for kind in silent)


def test_all_errors_stand_in_the_errors_files() -> None:
    assert {kind.__module__ for kind in EVERY} == {module.__name__ for module in MODULES}


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in EVERY]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: str(kind.__name__))
def test_an_error_has_a_code_a_sentence_and_an_advice(kind: type[CodedError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{2,63}", kind.code)
    assert kind.advice.endswith(".")
    sentence = str(example_of(kind))
    assert sentence
    assert "{" not in sentence


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: str(kind.__name__))
def test_an_error_survives_the_way_to_another_process(kind: type[CodedError]) -> None:
    error = example_of(kind)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.evidence == error.evidence


def test_missing_evidence_is_a_defect_that_shows_at_once() -> None:
    with pytest.raises(KeyError):
        MissingSliceError(slice_index=3)


def test_a_place_can_be_added_later() -> None:
    error = MissingSliceError(slice_index=3, gap_mm=5.0, expected_mm=2.5).placed(role="flair")
    assert error.evidence["role"] == "flair"
    assert str(error) == "flair: gap before slice 3 is 5.000 mm, expected 2.500 mm"


def test_evidence_with_braces_is_not_expanded() -> None:
    error = node.errors.ConfigError(reason="{secret} {0.__class__}")
    assert str(error).endswith("{secret} {0.__class__}")
