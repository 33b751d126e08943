"""What the pages and the API show of a result, and whether a person has to look at it first."""

from __future__ import annotations

from typing import Any

from converters.volume import LabelMap
from inference.manifest import Manifest
from node import convert, findings
from node.cases import AssembledCase
from node.settings import Delivery
from node.spool import Spool


def of(
    case: AssembledCase,
    label_map: LabelMap,
    measured: dict[str, Any],
    manifest: Manifest,
    spool: Spool,
) -> dict[str, Any]:
    """Return what is shown of a segmented case; volumes of regions overlap each other's.

    `measured` is what `measuring.content_of` gives.
    """
    by_number = label_map.volumes_ml()
    found = findings.read(case, spool)
    return {
        "volumes_ml": {one.label: round(by_number[one.number], 3) for one in label_map.segments},
        "regions_ml": {
            one.label: round(sum(by_number[number] for number in one.labels), 3)
            for one in manifest.regions
        },
        "measurements": measured,
        "reference_role": case.reference_role,
        "notes": found.get("notes", []),
        "uncertainty": found.get("uncertainty"),
        "tta": found.get("tta"),
        "alignment": [
            {
                "role": motion.role,
                "is_applied": motion.is_applied,
                "shift_mm": round(motion.shift_mm, 2),
                "rotation_deg": round(motion.rotation_deg, 2),
                "reason": motion.reason,
            }
            for motion in convert.read_alignment(case, spool)
        ],
    }


def held_for(summary: dict[str, Any], delivery: Delivery) -> tuple[str, ...]:
    """Return the codes of the notes that keep a result from being delivered by itself."""
    codes = dict.fromkeys(findings.code_of(note) for note in summary["notes"])
    return tuple(code for code in codes if delivery.holds(code))
