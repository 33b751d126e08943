"""What is measured of a case: for its report, for its file, for the page and the API."""

from __future__ import annotations

import json
from typing import Any, Final

from converters import measure
from converters.diameters import Diameters
from converters.measure import LEAST_LESION_MM3, Lesion, Measurements, Region
from converters.sr_check import ML_DECIMALS, MM_DECIMALS, lesion_name
from converters.volume import OWN_SCHEME, Code, LabelMap
from inference.manifest import Manifest
from inference.note_codes import NOTE_CODES
from node import findings
from node.cases import AssembledCase
from node.spool import Spool
from node.uids import derived_uid

FILE_NAME: Final = "measurements.json"
SCHEMA: Final = "neuroseg-measurements/1"


def of(label_map: LabelMap, manifest: Manifest) -> Measurements:
    """Return the measurements of a label map and of the model's regions."""
    regions = [
        Region(
            label=one.label,
            numbers=one.labels,
            category=one.category.as_code(),
            type_code=one.type_code.as_code(),
        )
        for one in manifest.regions
    ]
    return measure.measure(label_map, regions)


def tracking_uid(case: AssembledCase, manifest: Manifest, name: str) -> str:
    """Return the tracking UID of something that was measured, the same whenever it is."""
    return derived_uid(case.case_id, manifest.weights_sha256, f"tracking-{name}")


def notes_of(case: AssembledCase, spool: Spool) -> tuple[Code, ...]:
    """Return the notes on a result as codes, each once."""
    found = dict.fromkeys(map(findings.code_of, findings.read(case, spool).get("notes", ())))
    return tuple(
        Code(value=one, scheme=OWN_SCHEME, meaning=NOTE_CODES.get(one, one)) for one in found
    )


def write(content: dict[str, Any], case: AssembledCase, spool: Spool) -> None:
    """Keep what `content_of` gave as a file of the case."""
    text = json.dumps(content, indent=1)
    final = spool.case_folder(case.case_id) / FILE_NAME
    spool.publish(final, lambda part: part.write_text(text, encoding="utf-8"))


def content_of(found: Measurements, case: AssembledCase, manifest: Manifest) -> dict[str, Any]:
    """Return the measurements as JSON has them: millilitres, millimetres, patient LPS."""
    return {
        "schema": SCHEMA,
        "use": "research use only",
        "model_id": manifest.model_id,
        "reference_role": case.reference_role,
        "whole": {"label": found.whole.label, "volume_ml": _ml(found.whole_ml)},
        "segments": [
            {"number": one.number, "label": one.label, "volume_ml": _ml(volume_ml)}
            for one, volume_ml in zip(found.segments, found.segments_ml, strict=True)
        ],
        "regions": [
            {"label": one.label, "segments": list(one.numbers), "volume_ml": _ml(volume_ml)}
            for one, volume_ml in zip(found.regions, found.regions_ml, strict=True)
        ],
        "lesion_count": found.lesion_count,
        "lesions": [
            {**_lesion(one, found), "tracking_uid": tracking_uid(case, manifest, lesion_name(one))}
            for one in found.lesions
        ],
        "smaller_pieces": {
            "below_mm3": LEAST_LESION_MM3,
            "count": found.small_count,
            "volume_ml": _ml(found.small_ml),
        },
    }


def _lesion(one: Lesion, found: Measurements) -> dict[str, Any]:
    widest = one.enhancing
    return {
        "number": one.number,
        "volume_ml": _ml(one.volume_ml),
        "centre_lps_mm": _mm(one.centre_lps_mm),
        "enhancing": widest and {"volume_ml": _ml(found.enhancing_ml(one)), **_lengths(widest)},
    }


def _lengths(one: Diameters) -> dict[str, Any]:
    return {
        "slice_index": one.slice_index,
        "long_mm": round(one.long_mm, MM_DECIMALS),
        "short_mm": round(one.short_mm, MM_DECIMALS),
        "product_mm2": round(one.product_mm2, MM_DECIMALS),
        "long_ends_lps_mm": [_mm(end) for end in one.long_ends_lps_mm],
        "short_ends_lps_mm": [_mm(end) for end in one.short_ends_lps_mm],
    }


def _ml(volume_ml: float) -> float:
    return round(volume_ml, ML_DECIMALS)


def _mm(place: tuple[float, float, float]) -> list[float]:
    return [round(part, MM_DECIMALS) for part in place]
