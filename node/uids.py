"""Deterministic identifiers: the same input always gives the same name.

A retry or a re-run therefore is the same DICOM object, never a duplicate.
"""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6c6f4a3e-6f0c-5d0c-9a52-4e7f2f1f3b6a")


def case_id(study_instance_uid: str, model_id: str, revision: int) -> str:
    """Return the case's own id: 32 hexadecimal digits that reveal no UID."""
    return uuid.uuid5(_NAMESPACE, f"case|{study_instance_uid}|{model_id}|{revision}").hex


def notification_id(case: str, run: int, event: str, destination: str) -> str:
    """Return the id of what is told of a case: once a run, and a destination where there is one."""
    return uuid.uuid5(_NAMESPACE, f"told|{case}|{run}|{event}|{destination}").hex


def derived_uid(case: str, model_digest: str, role: str) -> str:
    """Return the UID of an object made for a case by one set of weights.

    References
    ----------
    DICOM PS3.5 B.2: ``2.25.`` followed by a UUID as a decimal number.
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{role}|{case}|{model_digest}').int}"


def transaction_uid(case: str, destination: str, number: int) -> str:
    """Return the Transaction UID under which a destination is asked to keep a case's objects."""
    return derived_uid(case, f"{destination}|{number}", "commitment")


def device_uid(model_id: str, model_digest: str) -> str:
    """Return the UID of what observes with a model: another one whenever the model changes.

    References
    ----------
    IHE RAD AI Results: identification of the algorithm as a device.
    """
    return derived_uid(model_id, model_digest, "device")
