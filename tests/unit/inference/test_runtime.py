"""What runs a network: the scores of torch, whichever it is, and torch where another fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from converters import phantom
from inference import choosing, manifest, model
from inference.activation import Activation
from inference.choosing import Precision
from inference.errors import InvalidOutputError
from inference.networks import ResidualUNet
from inference.predict import predict
from inference.runtime import OpenVinoRuntime, StoppedError, TorchRuntime, knows_half

PRECISIONS: tuple[Precision, ...] = ("auto", "float32")
ROOT = Path(__file__).parents[3]
WINDOW = (32, 32, 32)


def never() -> bool:
    return False


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(4)
    return {
        "demo": ResidualUNet(4, 4, (4, 8, 8)),
        "unet": UNet(3, 4, 4, (4, 8, 16), (2, 2), num_res_units=2, norm="batch"),
        "segresnet": SegResNet(init_filters=8, in_channels=4, out_channels=3),
        "dynunet": DynUNet(3, 4, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8]),
        "swin": SwinUNETR(4, 3, feature_size=12, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2)),
    }


@pytest.mark.parametrize("name", networks())
def test_openvino_runs_the_published_architectures_with_the_scores_of_torch(name: str) -> None:
    network = networks()[name].eval()
    side = 64 if name == "swin" else 32  # the least that it takes
    chosen = choosing.choose(
        network, "cpu", window=(side, side, side), channels=4, threads=2, precision="float32"
    )
    assert chosen.reason == ""
    assert chosen.runtime.name.startswith("OpenVINO")
    window = torch.randn(1, 4, side, side, side, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        expected = network(window)
    (found,) = chosen.runtime.scores([window], never)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


in_half = pytest.mark.skipif(not knows_half(), reason="the processor knows no bfloat16")


@in_half
def test_half_precision_is_taken_where_it_labels_as_float32_does() -> None:
    study = list(phantom.make_study(3, size="small").volumes.values())
    labels = {}
    for precision in PRECISIONS:
        loaded = model.load(
            manifest.load(ROOT / "models" / "demo-glioma"),
            device="cpu",
            precision=precision,
            mask_folder=ROOT / "models" / "brain-mask",
        )
        assert loaded.runtime_reason == ""
        assert loaded.runtime.name.endswith({"auto": "bfloat16"}.get(precision, precision))
        labels[precision] = predict(study, loaded, reference_role="t1gd").label_map.labels
    assert labels["auto"].any()
    assert (labels["auto"] == labels["float32"]).mean() > 0.9999


def undecided() -> nn.Module:
    """Return a network whose labels are a matter of digits that half precision does not have."""
    network = nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 1))
    with torch.no_grad():
        for name, values in network.state_dict().items():
            values.fill_({"0.weight": 1e-5, "0.bias": 1.0}.get(name, 0.0))
        network.state_dict()["2.weight"].copy_(torch.tensor([1.0, -1.0])[:, None, None, None, None])
        network.state_dict()["2.bias"].copy_(torch.tensor([-8.0, 8.0]))
    return network.eval()


@in_half
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_half_precision_that_labels_otherwise_is_not_taken_and_that_is_said(
    activation: Activation,
) -> None:
    chosen = choosing.choose(
        undecided(), "cpu", window=WINDOW, channels=4, threads=1, activation=activation
    )
    assert chosen.runtime.name.endswith("float32")
    assert "half precision labels" in chosen.reason


@pytest.mark.skipif(knows_half(), reason="the processor knows bfloat16")
def test_a_processor_without_half_precision_computes_in_float32() -> None:
    network = networks()["unet"].eval()
    chosen = choosing.choose(network, "cpu", window=WINDOW, channels=4, threads=1)
    assert (chosen.reason, chosen.runtime.name[-7:]) == ("", "float32")


def test_windows_come_back_in_order_however_many_run() -> None:
    network = ResidualUNet(4, 4, (4, 6)).eval()
    given = [torch.randn(1, 4, 16, 16, 16) for _ in range(7)]
    given += [torch.randn(1, 4, 8, 16, 16) for _ in range(3)]
    with torch.inference_mode():
        expected = [network(window) for window in given]
    for one in (OpenVinoRuntime(network, threads=2), TorchRuntime(network, "cpu")):
        found = list(one.scores(iter(given), never))
        assert len(found) == len(given)
        for scores, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-4)


class Odd(nn.Module):
    """A network that is no network."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        """Return what a runtime cannot work with."""
        if self.kind == "several":
            return x, x
        if self.kind == "unknown":
            return torch.special.i1e(x)
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("kind", "reason"), [("unknown", "cannot run"), ("unsteady", "other scores")]
)
def test_torch_runs_what_openvino_does_not_and_says_so(kind: str, reason: str) -> None:
    chosen = choosing.choose(Odd(kind).eval(), "cpu", window=WINDOW, channels=4, threads=1)
    assert chosen.runtime.name.startswith("torch")
    assert reason in chosen.reason


def test_several_outputs_are_refused_before_anything_is_chosen() -> None:
    with pytest.raises(InvalidOutputError, match="several outputs"):
        choosing.choose(Odd("several").eval(), "cpu", window=WINDOW, channels=4, threads=1)


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_a_batch_shrinks_where_memory_ends(fits: int) -> None:
    sizes: list[int] = []

    class Crowded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(x.shape[0])
            if x.shape[0] > fits:
                raise torch.OutOfMemoryError
            return 2.0 * x

    given = [torch.full((1, 1, 2, 2, 2), float(number)) for number in range(8)]
    crowded = TorchRuntime(Crowded(), "cpu")
    crowded._at_once = 8
    found = list(crowded.scores(iter(given), never))
    assert [float(one.mean()) for one in found] == [2.0 * number for number in range(8)]
    assert sizes[-1] <= fits


def test_one_window_that_does_not_fit_is_said() -> None:
    class Full(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        list(TorchRuntime(Full(), "cpu").scores([torch.zeros(1, 1, 2, 2, 2)], never))


def test_stopping_before_the_first_window_computes_none() -> None:
    network = ResidualUNet(4, 4, (4, 6)).eval()
    for one in (OpenVinoRuntime(network, threads=1), TorchRuntime(network, "cpu")):
        with pytest.raises(StoppedError):
            list(one.scores([torch.zeros(1, 4, 16, 16, 16)], lambda: True))


def test_nothing_is_sent_anywhere_and_nothing_is_kept(tmp_path: Path) -> None:
    """Its maker's library can report its use; a node has nobody to report to."""
    program = """
import sys
def hook(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg"}:
        print("REACHES OUT", event, arguments)
sys.addaudithook(hook)
from inference import manifest, model
from pathlib import Path
loaded = model.load(manifest.load(Path("models/demo-glioma")), device="cpu", threads=1)
print(loaded.runtime.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("OpenVINO")
    assert "REACHES OUT" not in done.stdout
    assert not list(tmp_path.glob("intel*"))
