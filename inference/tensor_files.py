"""Tensors out of a safetensors file that nobody vouches for."""

from __future__ import annotations

from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

_KINDS: Final = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
)
"""Types that every operation of torch knows; of others even `isfinite` may be missing."""
_MOST_AXES: Final = 8


class TensorFileError(Exception):
    """Why the content cannot be used, in words."""


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    Raises
    ------
    TensorFileError
        It is no such file, or holds tensors of a type or shape that no network has.
    """
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise TensorFileError(f"not a safetensors file: {error}") from error
    except (AssertionError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        # The format knows types that torch does not, and shapes beyond any memory.
        raise TensorFileError(
            f"it holds a tensor that torch cannot have ({type(error).__name__})"
        ) from error
    for tensor in tensors.values():
        if tensor.dtype not in _KINDS or tensor.dim() > _MOST_AXES:
            raise TensorFileError("it holds a tensor of a type or shape that no network has")
    return tensors
