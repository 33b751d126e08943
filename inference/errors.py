"""Why a prediction could not be made."""

from __future__ import annotations

from converters.errors import CodedError


class InferenceError(CodedError):
    """Root of this package's errors."""


class ModelUnusableError(InferenceError):
    code = "MODEL_UNUSABLE"
    sentence = "the model cannot be used: {field}: {reason}"
    advice = "Correct the model's manifest or restore its files, then restart."


class ModelImportError(InferenceError):
    code = "MODEL_IMPORT_REFUSED"
    sentence = "the model cannot be imported: {reason}"
    advice = "Check that the checkpoint is whole and belongs to the template; see docs/models.md."


class DeviceMemoryError(InferenceError):
    code = "DEVICE_MEMORY"
    sentence = "the device ran out of memory with {window_count} windows of {voxels} voxels"
    advice = "Free memory on the device or choose a smaller window in the manifest."


class InvalidOutputError(InferenceError):
    code = "MODEL_OUTPUT_INVALID"
    sentence = "the network's output cannot be used: {reason}"
    advice = "Run `neuroseg doctor`; the model may not fit its manifest."


class PredictionStoppedError(InferenceError):
    code = "PREDICTION_STOPPED"
    sentence = "the computation was stopped after {windows_done} of {window_count} windows"
    advice = "Nothing to do: whoever asked for it no longer wants it. Retry the case if it is."


class InputUnfitError(InferenceError):
    """The images are not what the model can work on; sending them again changes nothing."""


class ChannelMissingError(InputUnfitError):
    code = "MODEL_INPUT_MISSING"
    sentence = "the model needs the inputs {expected}, got {found}"
    advice = "Send the missing sequence."


class ChannelConstantError(InputUnfitError):
    code = "CHANNEL_CONSTANT"
    sentence = "every voxel of the series has the same value, expected an image"
    advice = "Send the series again; leave it out if the model can do without."


class BrainNotFoundError(InputUnfitError):
    code = "BRAIN_NOT_FOUND"
    sentence = (
        "{volume_ml:.0f} mL of the images look like brain, "
        "expected {least_ml:.0f} to {most_ml:.0f} mL"
    )
    advice = "Check that the series show a whole head and no other part of the body."


class ChannelImplausibleError(InputUnfitError):
    code = "CHANNEL_IMPLAUSIBLE"
    sentence = "the series do not look like what they were taken for: {reason}"
    advice = "Check which series is which, then choose them by hand or correct their descriptions."


class ChannelFieldOfViewError(InputUnfitError):
    code = "CHANNEL_FIELD_OF_VIEW"
    sentence = "the series shows {share_percent:.0f} % of the brain, expected {least_percent:.0f} %"
    advice = "Send a series that covers the whole brain."
