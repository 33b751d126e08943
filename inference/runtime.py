"""What runs a network: windows in, scores out, in order, on the processor or on a GPU.

torch runs any of them anywhere; OpenVINO runs most of them on the processor in a half to a third of
the time. `inference.choosing` says which one does.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
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
_MOST_AT_ONCE: Final = 8  # windows; more fill no GPU better
_OF_FREE_MEMORY: Final = 0.8
OPENVINO_FAILS: Final = (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a network that OpenVINO cannot take ends in."""


def never() -> bool:
    """Want every result."""
    return False


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
            scores = single(self._network(batch.to(self._device)))
        return scores.to("cpu", torch.float32)

    def _ask(self, _layer: nn.Module, _inputs: Any) -> None:  # noqa: ANN401 - torch's own hook
        if self._stop():
            raise StoppedError


# -- OpenVINO -------------------------------------------------------------------------------------


class OpenVinoRuntime:
    """Runs a network in OpenVINO on the processor.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, float32, on the CPU; translated once for each shape of window, the last
        of which is kept.
    threads : int
        To compute with.
    half : bool
        Whether layers compute in bfloat16; a processor that does not know it takes float32.
    """

    def __init__(self, network: nn.Module, threads: int, *, half: bool = False) -> None:
        self._network, self.half = network, half
        self._core = openvino.Core()
        streams = min(IN_FLIGHT, threads)
        self._options = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": str(streams),
        }
        self._requests: list[Any] = []
        self._shape: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Library and precision, for people."""
        precision = "bfloat16" if self.half else "float32"
        return f"OpenVINO {openvino.__version__.partition('-')[0]} {precision}"

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
        expected = single(seen[0])
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        frontend = FrontEndManager().load_by_framework("pytorch")
        translated = frontend.convert(frontend.load(decoder))
        shape = tuple(example.shape)
        translated.reshape(list(shape))
        compiled = self._core.compile_model(translated, "CPU", self._options)
        self._requests.extend(compiled.create_infer_request() for _ in range(IN_FLIGHT))
        self._shape = shape
        return expected.detach().clone()


def knows_half() -> bool:
    """Say whether the processor computes in bfloat16; those that do not are far slower in it."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def single(scores: object) -> Tensor:
    """Return the scores of a network; raises `InvalidOutputError` for anything but one tensor."""
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
