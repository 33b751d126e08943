"""Why a prediction could not be made."""

from __future__ import annotations

from converters.errors import CodedError


class InferenceError(CodedError):
    """Root of this package's errors."""


class ModelUnusableError(InferenceError):
    code = "MODEL_UNUSABLE"
    sentence = "the model cannot be used: {field}: {reason}"
    advice = "Correct the model's manifest or restore its files, then restart."


class DeviceMemoryError(InferenceError):
    code = "DEVICE_MEMORY"
    sentence = "the device ran out of memory with {window_count} windows of {voxels} voxels"
    advice = "Free memory on the device or choose a smaller window in the manifest."


class InvalidOutputError(InferenceError):
    code = "MODEL_OUTPUT_INVALID"
    sentence = "the network's output cannot be used: {reason}"
    advice = "Run `neuroseg doctor`; the model may not fit its manifest."


class ChannelMissingError(InferenceError):
    code = "MODEL_INPUT_MISSING"
    sentence = "the model needs the inputs {expected}, got {found}"
    advice = "Send the missing sequence."
