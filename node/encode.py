"""Stage 4: what was found in a case becomes DICOM files, read back before they get their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from converters import part10, series
from converters.headers import read_header
from converters.measure import Measurements
from converters.parametric_map import build_parametric_map, check_parametric_map
from converters.secondary_capture import Picture, ShownSeries, build_capture, check_capture
from converters.seg import SegIdentity, build_segmentation, check_segmentation
from converters.seg_forms import build_label_map, build_layers, check_label_map, check_layers
from converters.series import Stack
from converters.sr import InstanceReference, ReportContext, build_report, check_report
from converters.sr_check import segment_name
from converters.structure_set import Structure, build_structure_set, check_structure_set
from converters.summary_pictures import Page
from converters.transfer import transferred
from converters.volume import LabelMap, Layers, Role, Volume
from inference.manifest import Manifest
from node import convert, identities, measuring
from node.cases import (
    AssembledCase,
    AssembledSeries,
    EncodedObject,
    ObjectKind,
    ReceivedInstance,
    also_name,
)
from node.peers import Destination
from node.regions import regions_of
from node.spool import Spool
from node.uids import derived_uid, device_uid

_SHORT_TEXT = 1024


class CaseEncoder:
    """Makes the derived objects of one case; the headers that they share are read once.

    The same case gives the same bytes again: nothing is drawn and no clock is read. Every object
    is written to the case's folder, read back, checked, and only then given its name.

    Parameters
    ----------
    case : AssembledCase
        What was segmented.
    label_map : LabelMap
        On the grid of the reference series.
    manifest : Manifest
        Of the model that made it.
    spool : Spool
        Where instances and results lie.

    Raises
    ------
    InputRejectedError
        The headers of the reference series cannot be read as a stack.

    Notes
    -----
    Each method raises `GridMismatchError` where what it is given does not lie on the reference
    series, and `ReadBackError` where what was written differs; no file stands there then.
    """

    def __init__(
        self, case: AssembledCase, label_map: LabelMap, manifest: Manifest, spool: Spool
    ) -> None:
        self._case, self._label_map, self._manifest = case, label_map, manifest
        self._spool = spool
        self._sources = _sources(case, spool, case.reference_role)

    def objects(
        self,
        found: Measurements,
        pages: Sequence[Page],
        receivers: Collection[Destination],
        *,
        empty_seg: bool,
    ) -> list[EncodedObject]:
        """Return what is to be delivered, and the SEG and the report whoever wants them.

        Parameters
        ----------
        found : Measurements
            Of the label map.
        pages : sequence of Page
            Of the summary, in order.
        receivers : collection of Destination
            Who gets what, and on which further series.
        empty_seg : bool
            Whether there is a SEG where nothing was found.
        """
        seg, made = None, []
        kinds = {kind for one in receivers for kind in one.kinds}
        if found.whole_ml or empty_seg:
            seg = self.seg()
            roles = dict.fromkeys(role for one in receivers for role in one.also)
            made = [seg, *self._forms(found, kinds, roles)]
        made.append(self.report(found, seg))
        if ObjectKind.PICTURE in kinds:
            made += self.pictures(pages, seg)
        self.forget_all_but(made)
        return made

    def _forms(
        self, found: Measurements, kinds: Collection[ObjectKind], roles: Iterable[Role]
    ) -> Iterator[EncodedObject]:
        """Yield what is wanted beside the SEG of the labels, as far as there is any."""
        case, manifest, spool = self._case, self._manifest, self._spool
        if ObjectKind.REGIONS in kinds:
            yield self.regions(found)
        if ObjectKind.LABELMAP in kinds:
            yield self.label_map()
        if ObjectKind.STRUCTURES in kinds:
            yield self.structures()
        for role in roles:
            yield from self.also(role)
        if ObjectKind.PROBABILITIES in kinds and convert.has_probabilities(case, spool):
            layers = convert.read_probabilities(case, manifest.segments, manifest.model_id, spool)
            yield self.probabilities(layers)
        if ObjectKind.ENTROPY in kinds and convert.has_entropy(case, spool):
            yield self.entropy(convert.read_entropy(case, spool))

    def forget_all_but(self, made: Iterable[EncodedObject]) -> None:
        """Delete what an earlier run made, which may have been asked for other forms.

        Never before the new files are there: another process, which has taken the case over, may
        be delivering what is the same to the byte.
        """
        folder = self._spool.case_folder(self._case.case_id)
        kept = {self._spool.instance_path(one.path) for one in made}
        for stale in {*folder.glob("[!.]*.dcm")} - kept:
            stale.unlink(missing_ok=True)

    def seg(self) -> EncodedObject:
        """Return the SEG of the labels."""
        sources, label_map = self._sources, self._label_map
        seg = build_segmentation(
            label_map, sources.headers, self._identity(ObjectKind.SEG), sources.frames
        )
        check = partial(
            check_segmentation, label_map=label_map, sources=sources.headers, frames=sources.frames
        )
        return self._published(ObjectKind.SEG, seg, "seg.dcm", check)

    def regions(self, found: Measurements) -> EncodedObject:
        """Return the SEG of the regions, which overlap, of the label map's measurements."""
        of_labels = self._identity(ObjectKind.REGIONS)
        regions = regions_of(found, self._label_map, self._manifest)
        numbers = {segment_name(one): one.number for one in found.segments}
        tracked = partial(measuring.tracking_uid, self._case, self._manifest)
        identity = replace(
            of_labels,
            tracking_names=regions.names,
            tracking_uids={
                number: of_labels.tracking_uids[numbers[name]] if name in numbers else tracked(name)
                for number, name in regions.names.items()
            },
            segment_descriptions=regions.descriptions,
        )
        return self._layers(ObjectKind.REGIONS, regions.layers, identity)

    def probabilities(self, layers: Layers) -> EncodedObject:
        """Return the SEG of the probability of each label."""
        kind = ObjectKind.PROBABILITIES
        return self._layers(kind, layers, self._identity(kind))

    def _layers(self, kind: ObjectKind, layers: Layers, identity: SegIdentity) -> EncodedObject:
        headers, frames = self._sources.headers, self._sources.frames
        seg = build_layers(layers, headers, identity, frames)
        check = partial(check_layers, layers=layers, sources=headers, frames=frames)
        return self._published(kind, seg, f"{kind}.dcm", check)

    def label_map(self) -> EncodedObject:
        """Return the labels as a Label Map Segmentation."""
        headers, frames, label_map = self._sources.headers, self._sources.frames, self._label_map
        kind = ObjectKind.LABELMAP
        seg = build_label_map(label_map, headers, self._identity(kind), frames)
        check = partial(check_label_map, label_map=label_map, sources=headers, frames=frames)
        return self._published(kind, seg, f"{kind}.dcm", check)

    def entropy(self, entropy: Volume) -> EncodedObject:
        """Return the Parametric Map of a field from 0 (sure) to 1 on the reference grid."""
        sources, field, grid = self._sources, entropy.intensities, entropy.grid
        identity = self._identity(ObjectKind.ENTROPY)
        found = build_parametric_map(field, grid, sources.headers, identity, sources.frames)
        check = partial(
            check_parametric_map,
            field=field,
            grid=grid,
            sources=sources.headers,
            frames=sources.frames,
        )
        return self._published(ObjectKind.ENTROPY, found, "entropy.dcm", check)

    def report(self, found: Measurements, seg: EncodedObject | None) -> EncodedObject:
        """Return the report of the label map's measurements, which refers to the SEG.

        Without one it says whether there is a tumour, and nothing of its parts.
        """
        case, manifest, sources = self._case, self._manifest, self._sources
        inputs = (_reference(one) for many in case.series for one in many.instances)
        context = ReportContext(
            model_id=manifest.model_id,
            device_uid=device_uid(manifest.model_id, manifest.weights_sha256),
            tracking_uid=partial(measuring.tracking_uid, case, manifest),
            segmentation=None if seg is None else _reference(seg),
            inputs=list(dict.fromkeys(inputs)),
            notes=measuring.notes_of(case, self._spool),
        )
        identity = self._identity(ObjectKind.REPORT)
        report = build_report(found, sources.headers, identity, context, sources.frames)
        check = partial(
            check_report,
            found=found,
            source=sources.headers[0],
            model_id=manifest.model_id,
            segmentation=context.segmentation,
            inputs=context.inputs,
        )
        return self._published(ObjectKind.REPORT, report, "sr.dcm", check)

    def pictures(self, pages: Sequence[Page], seg: EncodedObject | None) -> list[EncodedObject]:
        """Return the pages of a summary as Secondary Capture images of one series, in order.

        Their names name the files. `seg` is whose outlines they show, if any.
        """
        source = self._sources.headers[0]
        outlined = None
        if seg is not None:
            outlined = read_header(self._spool.instance_path(seg.path), instance=0)
        shown = [_shown(one) for one in self._case.series]
        written = []
        for number, page in enumerate(pages, start=1):
            picture = Picture(pixels=page.pixels, title=page.title, number=number)
            identity = replace(
                self._identity(ObjectKind.PICTURE),
                sop_instance_uid=derived_uid(
                    self._case.case_id, self._manifest.weights_sha256, f"picture-{page.name}"
                ),
            )
            capture = build_capture(picture, outlined, source, identity, shown)
            check = partial(check_capture, picture=picture, source=source)
            name = f"summary-{page.name}.dcm"
            written.append(self._published(ObjectKind.PICTURE, capture, name, check))
        return written

    def also(self, role: Role) -> list[EncodedObject]:
        """Return the SEG of the labels on the series of another role.

        Nothing where no series serves it, where it is the reference itself, and where what was
        found lies beside it.
        """
        case, manifest = self._case, self._manifest
        if role == case.reference_role or role not in {one.role for one in case.series}:
            return []
        stack = _sources(case, self._spool, role)
        motions = {one.role: one for one in convert.read_alignment(case, self._spool)}
        to_labels = motions[role].lps_to_reference_lps_mm if role in motions else np.eye(4)
        label_map = transferred(self._label_map, stack.grid, to_labels)
        if self._label_map.labels.any() and not label_map.labels.any():
            return []
        identity = identities.identity_on(role, case, label_map, manifest)
        seg = build_segmentation(label_map, stack.headers, identity, stack.frames)
        check = partial(
            check_segmentation, label_map=label_map, sources=stack.headers, frames=stack.frames
        )
        return [self._published(ObjectKind.ALSO, seg, also_name(role), check)]

    def structures(self) -> EncodedObject:
        """Return the labels and the model's regions as an RT Structure Set."""
        headers, frames, label_map = self._sources.headers, self._sources.frames, self._label_map
        structures = _structures(self._manifest)
        identity = self._identity(ObjectKind.STRUCTURES)
        found = build_structure_set(label_map, structures, headers, identity, frames)
        check = partial(
            check_structure_set,
            label_map=label_map,
            structures=structures,
            sources=headers,
            frames=frames,
        )
        return self._published(ObjectKind.STRUCTURES, found, "rtstruct.dcm", check)

    def _identity(self, kind: ObjectKind) -> SegIdentity:
        return identities.identity_of(kind, self._case, self._label_map, self._manifest)

    def _published(
        self, kind: ObjectKind, derived: Dataset, name: str, check: Callable[[Path], None]
    ) -> EncodedObject:
        def _write(part: Path) -> None:
            part10.write(derived, part)
            check(part)

        final = self._spool.case_folder(self._case.case_id) / name
        self._spool.publish(final, _write)
        content = final.read_bytes()
        return EncodedObject(
            case_id=self._case.case_id,
            kind=kind,
            path=str(final.relative_to(self._spool.root)),
            sop_class_uid=str(derived.SOPClassUID),
            sop_instance_uid=str(derived.SOPInstanceUID),
            series_instance_uid=str(derived.SeriesInstanceUID),
            study_instance_uid=str(derived.StudyInstanceUID),
            transfer_syntax_uid=str(derived.file_meta.TransferSyntaxUID),
            byte_count=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )


def _structures(manifest: Manifest) -> list[Structure]:
    """Return the ROIs of a model's results: its labels, then its regions, which overlap."""
    labels = sorted(manifest.labels, key=lambda one: one.number)
    numbers = [*((one.number,) for one in labels), *(one.labels for one in manifest.regions)]
    return [
        Structure(
            name=one.label,
            numbers=its_numbers,
            type_code=one.type_code.as_code(),
            color_rgb=one.color_rgb,
            description=one.description[:_SHORT_TEXT],
        )
        for one, its_numbers in zip([*labels, *manifest.regions], numbers, strict=True)
    ]


def _sources(case: AssembledCase, spool: Spool, role: Role) -> Stack:
    """Return the series of a role, whose grid and headers derived objects share."""
    (serving,) = (one for one in case.series if one.role == role)
    return series.stack(
        [spool.instance_path(one.path) for one in serving.instances],
        serving.part,
        limits=None,  # it was found good before it was segmented
    )


def _reference(one: EncodedObject | ReceivedInstance) -> InstanceReference:
    return InstanceReference(
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        series_instance_uid=one.series_instance_uid,
    )


def _shown(one: AssembledSeries) -> ShownSeries:
    return ShownSeries(
        series_instance_uid=one.series_instance_uid,
        instances=tuple((each.sop_class_uid, each.sop_instance_uid) for each in one.instances),
    )
