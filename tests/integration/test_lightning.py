"""The reference project's model, trained and saved by Lightning itself, becomes a served model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.unet import UNet
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from inference import importing
from inference.importing import Identity
from tests import decathlon

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own dependencies complain of each other
    from pytorch_lightning import LightningModule, Trainer

WINDOW = (96, 96, 96)
CONFIG = OmegaConf.create(
    {
        "net": {
            "spatial_dims": 3,
            "in_channels": 4,
            "out_channels": 4,
            "channels": [16, 32, 64, 128, 256],
            "strides": [2, 2, 2, 2],
            "num_res_units": 2,
            "norm": "batch",
        },
        "lr": 1e-2,
    }
)


class SegModule(LightningModule):
    """The training of the reference project, in short."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = float(cfg.lr)
        self.net = UNet(**OmegaConf.to_container(cfg.net))  # type: ignore[arg-type]

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        image, labels = batch
        return functional.cross_entropy(self.net(image), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser, whose moments lie in the checkpoint as well."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SegModule, Path]:
    folder = tmp_path_factory.mktemp("lightning")
    torch.manual_seed(1)
    images, labels = torch.randn(2, 4, 32, 32, 32), torch.randint(0, 4, (2, 32, 32, 32))
    module = SegModule(CONFIG)
    options: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(max_epochs=2, accelerator="cpu", default_root_dir=folder, **options)
        trainer.fit(module, DataLoader(TensorDataset(images, labels), batch_size=2))
        trainer.save_checkpoint(folder / "model.ckpt")
    return module, folder / "model.ckpt"


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
def test_its_labels_are_those_of_the_plain_monai_calls_voxel_for_voxel(
    trained: tuple[SegModule, Path], tmp_path: Path
) -> None:
    module, checkpoint = trained
    done = importing.import_model(
        checkpoint,
        tmp_path / "served",
        importing.template_file("msd-unet"),
        identity=Identity(model_id="brats-unet", version="1.0.0"),
    )
    assert (done.report.place, done.report.stripped) == ("state_dict", "net.")
    assert (done.report.norm, done.report.parameter_count) == ("batch", 4_813_569)
    assert any("omegaconf" in name for name in done.report.inert)
    image = decathlon.write_image(tmp_path)
    plain = decathlon.plain_labels(image, module.net.eval(), WINDOW)
    assert len(np.unique(plain)) > 1
    assert np.array_equal(decathlon.node_labels(image, done.manifest), plain)
