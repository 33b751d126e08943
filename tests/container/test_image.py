"""The node's image: what is in it, what is not, and that it works sealed off."""

from __future__ import annotations

import io
import json
import tomllib
from pathlib import Path

import pytest
import torch

from tests import checkpoints, containers, wandb_server
from tests.containers import NODE_IMAGE, USER
from tests.phantoms import WrittenStudy
from tests.wandb_server import KEY, REFERENCE, Shelf

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

LARGEST_BYTES = 1_200_000_000
NEVER_RUN = ("gcc", "cc", "make", "ld", "pytest", "mypy", "ruff", "wandb", "git")


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    containers.build_node()


def shell(text: str) -> str:
    return containers.run_sealed(NODE_IMAGE, "-c", text, entry="sh").strip()


def name(package: str) -> str:
    return package.lower().replace("_", "-")


def test_it_is_small() -> None:
    (found,) = json.loads(containers.podman("image", "inspect", NODE_IMAGE))
    assert found["Size"] <= LARGEST_BYTES


def test_it_runs_as_a_user_without_rights_on_files_that_nobody_changes() -> None:
    assert shell("id -u") == USER
    assert shell("find /opt -user 10001 | head -1") == ""
    assert shell("touch /opt/neuroseg/x 2>&1 || true").endswith("Read-only file system")


def test_nothing_that_builds_or_tests_is_in_it() -> None:
    assert shell(f"for one in {' '.join(NEVER_RUN)}; do command -v $one; done; true") == ""
    assert shell("python -c 'import pip' 2>&1 || true").endswith("No module named 'pip'")


def test_the_list_of_what_is_inside_comes_with_it() -> None:
    bill = json.loads(shell("cat /opt/neuroseg/sbom.cdx.json"))
    versions = {name(one["name"]): one["version"] for one in bill["components"]}
    lock = (containers.ROOT / "requirements.lock").read_text().split()
    pairs = [line.split("==") for line in lock if "==" in line]
    locked = {name(package): version for package, version in pairs}
    assert versions["torch"] == f"{locked['torch']}+cpu"
    for one in ("monai", "openvino", "pydicom", "dynamic-network-architectures"):
        assert versions[one] == locked[one]
    assert not {"wandb", "pytest", "cyclonedx-bom"} & set(versions)


def test_a_study_is_segmented_without_any_network(
    small_study: WrittenStudy, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    for folder in (small_study.folder, *small_study.folder.parents[:2]):
        folder.chmod(0o755)
    mounts = (f"{small_study.folder}:/study:ro", f"{tmp_path}:/out")
    said = containers.run_sealed(NODE_IMAGE, "segment", "/study", "-o", "/out/1", mounts=mounts)
    assert "mL" in said
    assert (tmp_path / "1" / "seg.dcm").stat().st_size > 0


def test_a_model_is_fetched_when_the_image_is_built_and_its_key_stays_nowhere(
    tmp_path: Path,
) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoints.network(checkpoints.TRUE).state_dict(), buffer)
    secret = tmp_path / "key"
    secret.write_text(KEY)
    tag = "localhost/neuroseg-node:fetched"
    with wandb_server.serving(Shelf(files={"model.ckpt": buffer.getvalue()})) as shelf:
        values = {
            "WANDB_MODEL": f"{REFERENCE}:v7",
            "WANDB_BASE_URL": shelf.url,
            "MODEL_ID": "unet",
            "MODEL_TEMPLATE": "msd-unet",
        }
        arguments = [part for one in values.items() for part in ("--build-arg", "=".join(one))]
        containers.build_node("--secret", f"id=wandb_api_key,src={secret}", *arguments, tag=tag)
    manifest = containers.run_sealed(tag, "models/serving/model.toml", entry="cat")
    assert tomllib.loads(manifest)["id"] == "unet"
    assert "unet" in containers.run_sealed(tag, "model", "verify", "models/serving")
    assert KEY not in containers.podman("history", "--no-trunc", tag)
    found = f"grep -rl {KEY} /opt /etc /var /tmp /run 2>/dev/null || true"
    assert containers.run_sealed(tag, "-c", found, entry="sh") == ""
