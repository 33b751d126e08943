"""Identifiers that follow from their input."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from node import uids


def test_a_case_has_the_same_id_for_ever() -> None:
    assert uids.case_id("1.2.3", "demo@1", 1) == "61e8f906847358e9af839226d75446c4"


def test_study_model_and_revision_tell_cases_apart() -> None:
    wanted = itertools.product(("1.2.3", "1.2.4"), ("demo@1", "demo@2"), (1, 2))
    assert len({uids.case_id(*one) for one in wanted}) == 8


def test_a_case_id_is_a_name_of_our_own() -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", uids.case_id("../../1.2", "demo@1", 1))


@given(st.text(max_size=40), st.text(max_size=64), st.text(max_size=16))
def test_a_derived_uid_is_valid_and_repeatable(case: str, digest: str, role: str) -> None:
    uid = uids.derived_uid(case, digest, role)
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert uid == uids.derived_uid(case, digest, role)


def test_a_device_is_a_model_with_its_weights() -> None:
    wanted = itertools.product(("demo@1", "demo@2"), ("c", "d"))
    assert len({uids.device_uid(*one) for one in wanted}) == 4
    assert uids.device_uid("demo@1", "c") == uids.device_uid("demo@1", "c")


def test_case_weights_and_role_tell_objects_apart() -> None:
    wanted = itertools.product(("a", "b"), ("c", "d"), ("series", "instance"))
    assert len({uids.derived_uid(*one) for one in wanted}) == 8
