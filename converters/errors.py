"""Why a conversion could not be done, and the base that every error of the project shares.

An error has a stable code, a sentence that says what was found, what was expected and where, and an
advice. Its evidence is numbers, DICOM keywords, roles and our own codes; never an element's value.
"""

from __future__ import annotations

from typing import ClassVar, Self, TypeAlias

Evidence: TypeAlias = int | float | str


class CodedError(Exception):
    """An error with a code that is kept for ever.

    Parameters
    ----------
    **evidence : int, float or str
        The values that the class's `sentence` names; a missing one raises ``KeyError`` at once.
    """

    code: ClassVar[str] = ""
    sentence: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def __init__(self, **evidence: Evidence) -> None:
        self.sentence.format(**evidence)
        super().__init__(evidence)
        self.evidence = evidence

    def __str__(self) -> str:
        """Return the sentence with its evidence filled in, the role it was `placed` at first."""
        filled = self.sentence.format(**self.evidence)
        if "role" not in self.evidence or "{role}" in self.sentence:
            return filled
        return f"{self.evidence['role']}: {filled}"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way to another process."""
        return _rebuild, (type(self), self.evidence)

    def placed(self, **more: Evidence) -> Self:
        """Return the same error with further evidence, such as the role of the series."""
        return type(self)(**{**self.evidence, **more})


def _rebuild(kind: type[CodedError], evidence: dict[str, Evidence]) -> CodedError:
    return kind(**evidence)


class ConversionError(CodedError):
    """Root of this package's errors."""


class InputRejectedError(ConversionError):
    """The input cannot be used as it is; sending it again changes nothing."""


class MissingAttributeError(InputRejectedError):
    code = "DICOM_ATTRIBUTE_MISSING"
    sentence = "{keyword} is missing or unusable in instance {instance} of the series"
    advice = "Have the sender supply the attribute, or send the original images of the scanner."


class HeaderUnreadableError(InputRejectedError):
    code = "DICOM_UNREADABLE"
    sentence = "instance {instance} of the series is not readable DICOM ({reason})"
    advice = "The object is damaged; send the original images of the scanner again."


class SeriesUnreadableError(InputRejectedError):
    code = "SERIES_UNREADABLE"
    sentence = "the headers of the series cannot be interpreted (an unforeseen {kind})"
    advice = "Report this as a defect, and send the original images of the scanner."


class PixelDecodeError(InputRejectedError):
    code = "PIXEL_UNREADABLE"
    sentence = "the pixels of slice {slice_index} cannot be decoded ({reason})"
    advice = "Send the series again uncompressed (Explicit VR Little Endian)."


class MultiFrameError(InputRejectedError):
    code = "SERIES_MULTIFRAME_UNSUPPORTED"
    sentence = (
        "instance {instance} of the series has {frame_count} frames and describes {described}, "
        "expected enhanced MR with a description of every frame"
    )
    advice = "Have the scanner or the PACS export Enhanced MR or classic single-frame MR images."


class MosaicError(InputRejectedError):
    code = "SERIES_MOSAIC_UNSUPPORTED"
    sentence = "instance {instance} of the series is a mosaic: its slices are tiles of one image"
    advice = "Have the scanner export classic single-slice images or Enhanced MR (no mosaic)."


class ConcatenationIncompleteError(InputRejectedError):
    code = "SERIES_CONCATENATION_INCOMPLETE"
    sentence = "{found} of {total} instances of a concatenation are there"
    advice = "Send the missing instances of this series; the case opens again when they arrive."


class PartUnknownError(InputRejectedError):
    code = "SERIES_PART_UNKNOWN"
    sentence = "the series holds {count} acquisitions and none is the one that was asked for"
    advice = "Choose one acquisition of the series by hand, or send each as a series of its own."


class TooFewSlicesError(InputRejectedError):
    code = "GEOM_TOO_FEW_SLICES"
    sentence = "{slice_count} slices, expected at least {minimum}"
    advice = "Check that the whole series was sent; a localizer cannot be segmented."


class TooManyVoxelsError(InputRejectedError):
    code = "GEOM_TOO_LARGE"
    sentence = "the series has {voxel_count} voxels, expected at most {maximum}"
    advice = "Check that one series holds one acquisition; send it in its usual matrix."


class MixedMatrixError(InputRejectedError):
    code = "GEOM_MIXED_MATRIX"
    sentence = "{keyword} differs at slice {slice_index} within the series"
    advice = "Send one acquisition per series; split the series at the scanner or PACS."


class MixedOrientationError(InputRejectedError):
    code = "GEOM_MIXED_ORIENTATION"
    sentence = "slice {slice_index} is turned by {angle_deg:.3f} degrees against the first one"
    advice = "Send one orientation per series; split the series at the scanner or PACS."


class MixedFrameOfReferenceError(InputRejectedError):
    code = "GEOM_FRAME_OF_REFERENCE"
    sentence = "{found} frames of reference among {among}, expected one"
    advice = "The series were not acquired in one position; they must be registered first."


class DuplicateSliceError(InputRejectedError):
    code = "GEOM_DUPLICATE_SLICE"
    sentence = "{count} slices share a position, the first of them at slice {slice_index}"
    advice = "The series mixes echoes, phases or repeats; send them as separate series."


class MissingSliceError(InputRejectedError):
    code = "GEOM_MISSING_SLICE"
    sentence = "gap before slice {slice_index} is {gap_mm:.3f} mm, expected {expected_mm:.3f} mm"
    advice = "Send the missing images of this series; the case opens again when they arrive."


class IrregularSpacingError(InputRejectedError):
    code = "GEOM_UNEVEN_GAP"
    sentence = "gap before slice {slice_index} is {gap_mm:.3f} mm, expected {expected_mm:.3f} mm"
    advice = "The slices are not evenly spaced; send an evenly spaced acquisition."


class ShearedStackError(InputRejectedError):
    code = "GEOM_SHEARED"
    sentence = "slices are displaced by {shift_mm:.3f} mm within their plane (tilted stack)"
    advice = "Send the series without gantry tilt or in-plane shift."


class SpacingError(InputRejectedError):
    code = "GEOM_SPACING"
    sentence = (
        "neighbouring {axis} are {spacing_mm:.4f} mm apart, "
        "expected {minimum_mm:.2f} to {maximum_mm:.2f} mm for a head"
    )
    advice = "Check the spacing in the headers; send the original images of the scanner."


class FieldOfViewError(InputRejectedError):
    code = "GEOM_FIELD_OF_VIEW"
    sentence = (
        "the {axis} cover {extent_mm:.1f} mm, "
        "expected {minimum_mm:.1f} to {maximum_mm:.1f} mm for a head"
    )
    advice = "Send one series that shows the whole head and nothing else."


class CoverageError(InputRejectedError):
    code = "GEOM_COVERAGE"
    sentence = "the slices cover {covered_mm:.1f} mm, expected at least {minimum_mm:.1f} mm"
    advice = "Send a series that covers the whole brain; check that all its images were sent."


class EmptyImageError(InputRejectedError):
    code = "IMAGE_CONSTANT"
    sentence = "every voxel has the same value, expected an image"
    advice = "Send the series again; it holds no image."


class NotFiniteError(InputRejectedError):
    code = "IMAGE_NOT_FINITE"
    sentence = "{voxel_count} voxels are infinite or no number, the first in slice {slice_index}"
    advice = "Send the original images of the scanner; these were damaged in processing."


class BlankSlicesError(InputRejectedError):
    code = "IMAGE_BLANK_SLICES"
    sentence = (
        "{count} slices between others hold one value only, "
        "the first at slice {slice_index}, expected none"
    )
    advice = "Send the series again; images lost their pixels on the way."


class NearlyEmptyError(InputRejectedError):
    code = "IMAGE_NEARLY_EMPTY"
    sentence = (
        "{content_ml:.0f} ml differ from the darkest value, "
        "expected at least {minimum_ml:.0f} ml of a head"
    )
    advice = "Check that the series shows a head; a mask or a cut-out cannot be segmented."


class RoleMissingError(InputRejectedError):
    code = "STUDY_SEQUENCE_MISSING"
    sentence = "no series serves as {roles}; found {found}"
    advice = "Send the missing sequence, or choose the series by hand."


class RoleAmbiguousError(InputRejectedError):
    code = "STUDY_SEQUENCE_AMBIGUOUS"
    sentence = "{count} series could be {role} and none is clearly the better one"
    advice = "Send only the series to be used, or choose it by hand."


class RoleUncertainError(InputRejectedError):
    code = "STUDY_SEQUENCE_UNCERTAIN"
    sentence = "the best series for {role} has score {score:.2f}, expected at least {minimum:.2f}"
    advice = "Choose the series by hand, or add a rule for it to the settings of the node."


class MotionTooLargeError(InputRejectedError):
    code = "ALIGN_MOTION_TOO_LARGE"
    sentence = (
        "the series lies {shift_mm:.1f} mm and {rotation_deg:.1f} degrees off the reference "
        "series, expected at most {largest_shift_mm:.1f} mm and {largest_rotation_deg:.1f} degrees"
    )
    advice = "Check that the series is of this patient and position; raise the limits if it is."


class PoorFitError(InputRejectedError):
    code = "ALIGN_POOR_FIT"
    sentence = "the series does not fit on the reference series: {reason}"
    advice = "Check that both series show the head of one patient, and the orientation labels."


class NiftiUnusableError(InputRejectedError):
    code = "NIFTI_UNUSABLE"
    sentence = "the NIfTI file cannot be used: {reason}"
    advice = "Send a finite 4-D NIfTI file with one channel per input of the model."


class NiftiChannelsError(InputRejectedError):
    code = "NIFTI_CHANNELS"
    sentence = "the NIfTI file has {found}, expected 4 dimensions and {expected} channels: {roles}"
    advice = "Stack the model's inputs along the fourth dimension, in the order of the sentence."


class EncodingError(ConversionError):
    """A result could not be written; our own defect until shown otherwise."""


class GridMismatchError(EncodingError):
    code = "SEG_GRID_MISMATCH"
    sentence = "the label map does not lie on the grid of its source series ({reason})"
    advice = "Report this as a defect with the case's log."


class ReadBackError(EncodingError):
    code = "SEG_READBACK_DIFFERS"
    sentence = "the encoded object differs from the label map ({reason})"
    advice = "Nothing was sent. Report this as a defect with the case's log."
