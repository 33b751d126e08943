"""What runs a network: windows in, scores out, in order, on the processor or on a GPU.

On the processor networks run in OpenVINO, which gives the scores of torch to rounding in about half
of its time; where it does not (a network that it cannot take, or other scores), torch runs
them. On a GPU torch runs them, in half precision where that gives the same labels.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

# OpenVINO would keep an identity and counts of its use in the home folder, to be sent to its maker;
# without this module it does not.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino
import torch
from openvino.frontend import (
    FrontEndManager,
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from inference.errors import InvalidOutputError

Stop: TypeAlias = Callable[[], bool]
"""Says whether the result is no longer wanted; asked often, so it has to answer at once."""

IN_FLIGHT: Final = 2
"""Windows at a time on the processor: one computes on each core while the last is blended."""

_LOOK_MS: Final = 50  # how often a window that computes is asked whether it still is wanted
_MOST_DIFFERENT: Final = 1e-3  # of the largest score; rounding is a thousandth of that
_LEAST_EQUAL: Final = 0.999  # of the labels of a window of noise, in half precision
_SEED: Final = 20
_MOST_AT_ONCE: Final = 8  # windows; more fill no GPU better
_OF_FREE_MEMORY: Final = 0.8
_OPENVINO_FAILS: Final = (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
    RuntimeError,
    TypeError,
    ValueError,
)


class StoppedError(Exception):
    """The result is no longer wanted."""


class Runtime(Protocol):
    """Runs a network over windows."""

    @property
    def name(self) -> str:
        """Library and precision, for people."""

    def scores(self, windows: Iterable[Tensor], stop: Stop) -> Generator[Tensor]:
        """Return the scores of each window, in order; close it to leave the rest uncomputed.

        Parameters
        ----------
        windows : iterable of (1, channels, x, y, z) tensor of float32
            All of one shape, on the CPU.
        stop : callable
            Asked all the time.

        Raises
        ------
        StoppedError
            `stop` said so.
        InvalidOutputError
            The network gives anything but one tensor.
        """


# -- torch ----------------------------------------------------------------------------------------


class TorchRuntime:
    """Runs a network in torch.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on `device`.
    device : str
        ``cpu`` or ``cuda``.
    half : torch.dtype or None
        Precision of the layers that may have less than float32.
    """

    def __init__(self, network: nn.Module, device: str, half: torch.dtype | None = None) -> None:
        self._network, self._device, self._half = network, device, half
        self._stop: Stop = never
        self._at_once = 0 if device == "cuda" else 1  # 0: find out
        for layer in network.modules():
            if not any(True for _ in layer.children()):
                layer.register_forward_pre_hook(self._ask)

    @property
    def name(self) -> str:
        """Library and precision, for people."""
        precision = "float32" if self._half is None else str(self._half).removeprefix("torch.")
        return f"torch {torch.__version__} {precision}"

    def scores(self, windows: Iterable[Tensor], stop: Stop) -> Generator[Tensor]:
        """Return the scores of each window; batches shrink where the device's memory ends."""
        self._stop = stop
        waiting = iter(windows)
        while batch := list(itertools.islice(waiting, max(1, self._at_once))):
            yield from self._of_batch(batch)

    def _of_batch(self, batch: list[Tensor]) -> Iterator[Tensor]:
        if not self._at_once:
            scores = self._measured(batch[0])
        else:
            try:
                scores = self._forward(torch.cat(batch))
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                torch.cuda.empty_cache()
                self._at_once = half = len(batch) // 2
                yield from self._of_batch(batch[:half])
                yield from self._of_batch(batch[half:])
                return
        yield from (one[None] for one in scores)

    def _measured(self, window: Tensor) -> Tensor:
        """Run the first window and find out how many fit into the memory that is free."""
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        scores = self._forward(window)
        each = max(1, torch.cuda.max_memory_allocated() - before)
        free = int(torch.cuda.mem_get_info()[0] * _OF_FREE_MEMORY)
        self._at_once = max(1, min(_MOST_AT_ONCE, free // each))
        return scores

    def _forward(self, batch: Tensor) -> Tensor:
        precision = (
            contextlib.nullcontext()
            if self._half is None
            else torch.autocast(self._device, dtype=self._half)
        )
        with torch.inference_mode(), precision:
            scores = _single(self._network(batch.to(self._device)))
        return scores.to("cpu", torch.float32)

    def _ask(self, _layer: nn.Module, _inputs: Any) -> None:  # noqa: ANN401 - torch's own hook
        if self._stop():
            raise StoppedError


# -- OpenVINO -------------------------------------------------------------------------------------


class OpenVinoRuntime:
    """Runs a network in OpenVINO on the processor, in float32.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, float32, on the CPU; translated once for each shape of window, the last
        of which is kept.
    threads : int
        To compute with.
    """

    def __init__(self, network: nn.Module, threads: int) -> None:
        self._network = network
        self._core = openvino.Core()
        streams = min(IN_FLIGHT, threads)
        self._options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": str(streams),
        }
        self._requests: list[Any] = []
        self._shape: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Library and precision, for people."""
        return f"OpenVINO {openvino.__version__.partition('-')[0]} float32"

    def scores(self, windows: Iterable[Tensor], stop: Stop) -> Generator[Tensor]:
        """Return the scores of each window; the next one computes while one is looked at."""
        running: deque[Any] = deque()
        try:
            for window in windows:
                if tuple(window.shape) != self._shape:
                    yield from self._finish(running, stop)
                    self.prepare(window)
                if len(running) == len(self._requests):
                    yield _result(running.popleft(), stop)
                free = next(one for one in self._requests if one not in running)
                free.start_async([window.contiguous().numpy()], share_inputs=False)
                running.append(free)
            yield from self._finish(running, stop)
        finally:
            for request in running:
                request.cancel()
                with contextlib.suppress(RuntimeError):  # which says that it was cancelled
                    request.wait()

    @staticmethod
    def _finish(running: deque[Any], stop: Stop) -> Iterator[Tensor]:
        while running:
            yield _result(running[0], stop)
            running.popleft()

    def prepare(self, example: Tensor) -> Tensor:
        """Translate the network for windows of the shape of `example`; return torch's scores of it.

        Raises
        ------
        InvalidOutputError
            The network gives anything but one tensor.
        """
        self._requests.clear()
        seen: list[Any] = []
        hook = self._network.register_forward_hook(lambda _m, _i, scores: seen.append(scores))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # Exporting takes far longer; what a trace fixes is the shape, as is wanted here.
                warnings.simplefilter("ignore")
                traced = torch.jit.trace(self._network, example, check_trace=False)  # type: ignore[no-untyped-call]
        finally:
            hook.remove()
        expected = _single(seen[0])
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        translated = frontend.convert(frontend.load(decoder))
        shape = tuple(example.shape)
        translated.reshape(list(shape))
        compiled = self._core.compile_model(translated, "CPU", self._options)
        self._requests.extend(compiled.create_infer_request() for _ in range(IN_FLIGHT))
        self._shape = shape
        return expected.detach().clone()


def _single(scores: object) -> Tensor:
    if not isinstance(scores, Tensor):
        raise InvalidOutputError(reason="several outputs, expected one")
    return scores


def _result(request: Any, stop: Stop) -> Tensor:  # noqa: ANN401 - not typed by the library
    while not request.wait_for(_LOOK_MS):
        if stop():
            raise StoppedError
    if stop():
        raise StoppedError
    return torch.from_numpy(request.get_output_tensor().data.copy())


# -- which one ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A runtime, the shape of its scores, and why it is not the fastest one; '' where it is."""

    runtime: Runtime
    shape: tuple[int, ...]
    reason: str = ""


def choose(
    network: nn.Module, device: str, *, window: tuple[int, ...], channels: int, threads: int
) -> Chosen:
    """Return what runs a network fastest with the scores of torch in float32.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, float32, on the CPU.
    device : str
        ``cpu`` or ``cuda``.
    window : tuple of int
        Its extent; a window of seeded noise is what candidates are compared on.
    channels : int
        Inputs of the network.
    threads : int
        To compute with on the processor.

    Raises
    ------
    InvalidOutputError
        The network gives anything but one tensor.
    RuntimeError
        torch cannot run the network on such a window.
    """
    noise = torch.randn((1, channels, *window), generator=torch.Generator().manual_seed(_SEED))
    if device == "cuda":
        return _on_gpu(network, noise)
    try:
        candidate = OpenVinoRuntime(network, threads)
        expected = candidate.prepare(noise)
        (found,) = candidate.scores([noise], never)
    except _OPENVINO_FAILS as error:
        reason = f"OpenVINO cannot run the network ({type(error).__name__})"
        return _in_torch(network, noise, reason)
    worst = _difference(found, expected)
    if worst <= _MOST_DIFFERENT:
        return Chosen(runtime=candidate, shape=tuple(found.shape))
    reason = f"OpenVINO gives other scores (by {worst:.1g} of the largest)"
    return _in_torch(network, noise, reason)


def _difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest score."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


def _in_torch(network: nn.Module, noise: Tensor, reason: str) -> Chosen:
    runtime = TorchRuntime(network, "cpu")
    (found,) = runtime.scores([noise], never)
    return Chosen(runtime=runtime, shape=tuple(found.shape), reason=reason)


def _on_gpu(network: nn.Module, noise: Tensor) -> Chosen:
    """Return torch on the GPU, in half precision where that labels noise as the processor does."""
    with torch.inference_mode():
        expected = _single(network(noise))
    network.to("cuda")
    half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    candidate = TorchRuntime(network, "cuda", half)
    (found,) = candidate.scores([noise], never)
    equal = float((found.argmax(dim=1) == expected.argmax(dim=1)).float().mean())
    if equal >= _LEAST_EQUAL and bool(torch.isfinite(found).all()):
        return Chosen(runtime=candidate, shape=tuple(found.shape))
    reason = f"half precision labels {100 * equal:.2f} % of noise as float32 does"
    return Chosen(runtime=TorchRuntime(network, "cuda"), shape=tuple(found.shape), reason=reason)


def never() -> bool:
    """Want every result."""
    return False
