"""What Terraform would make is closed to the world, whole, and the node takes its settings.

No terraform binary is at hand here: the files are read with python-hcl2, which knows the language
and nothing of the provider.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest

from node import settings

_FOLDER = Path(__file__).parents[3] / "deploy" / "terraform"
_TEMPLATE = _FOLDER / "user-data.sh.tftpl"
_TEXT = "\n".join(path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.tf")))


def _blocks(kind: str) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the blocks of a kind with their labels."""
    for path in sorted(_FOLDER.glob("*.tf")):
        with path.open(encoding="utf-8") as file:
            for block in hcl2.load(file).get(kind, []):
                labels: list[str] = []
                for _ in range(1 if kind == "variable" else 2):
                    (name,) = (key for key in block if not key.startswith("__"))
                    labels.append(name.strip('"'))
                    block = block[name]  # noqa: PLW2901
                yield tuple(labels), block


_RESOURCES = dict(_blocks("resource"))
_VARIABLES = {labels[0]: block for labels, block in _blocks("variable")}


def test_every_variable_is_declared_described_and_used() -> None:
    assert set(re.findall(r"\bvar\.(\w+)", _TEXT)) == _VARIABLES.keys()
    for name, block in _VARIABLES.items():
        assert block["description"], name


def test_every_resource_that_is_named_is_there() -> None:
    named = {(kind, name) for kind, name in re.findall(r"(?<![.\w])(aws_\w+)\.(\w+)\.", _TEXT)}
    assert named <= _RESOURCES.keys()


def test_nothing_lets_the_world_in() -> None:
    rules = {
        labels: block
        for labels, block in _RESOURCES.items()
        if labels[0] == "aws_vpc_security_group_ingress_rule"
    }
    assert {labels[1] for labels in rules} == {"dicom", "page"}
    for block in rules.values():
        assert block["for_each"] == "${toset(var.site_cidrs)}"
        assert block["cidr_ipv4"] == "${each.value}"
    assert sorted(int(block["from_port"]) for block in rules.values()) == [443, 2762]
    groups = [labels for labels in _RESOURCES if labels[0] == "aws_security_group"]
    for group in groups:
        assert "ingress" not in _RESOURCES[group]
    assert 'endswith(one, "/0")' in _TEXT


def test_disks_are_encrypted_and_the_spool_outlives_its_machine() -> None:
    spool = _RESOURCES["aws_ebs_volume", "spool"]
    assert spool["encrypted"] is True
    assert "prevent_destroy" in str(spool["lifecycle"])
    (root,) = _RESOURCES["aws_instance", "node"]["root_block_device"]
    assert root["encrypted"] is True
    (metadata,) = _RESOURCES["aws_instance", "node"]["metadata_options"]
    assert metadata["http_tokens"].strip('"') == "required"


def test_the_first_start_gets_what_it_names() -> None:
    given = set(
        re.findall(r"^    (\w+) +=", _TEXT.split("templatefile(")[1].split("})")[0], re.MULTILINE)
    )
    script = _TEMPLATE.read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)\}", script)) == given


def test_the_first_start_is_a_script_that_a_shell_reads() -> None:
    script = re.sub(r"\$\{(\w+)\}", r"\1", _TEMPLATE.read_text(encoding="utf-8"))
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_node_takes_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "node.toml"
    config.write_text("")
    script = _TEMPLATE.read_text(encoding="utf-8")
    environment = dict(re.findall(r"--env (NEUROSEG_\w+)=(\S+)", script))
    mounts = re.findall(r"--volume \S+?:(/\S+?)(?::ro)? ", script)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load(config)
    assert (loaded.receive.tls.host, loaded.receive.tls.port) == ("0.0.0.0", 2762)
    assert loaded.receive.host == "127.0.0.1"  # without TLS nobody comes in
    assert str(loaded.spool.path) in mounts
    for file in (
        loaded.web.certificate_file,
        loaded.web.key_file,
        loaded.web.tokens_file,
        loaded.receive.tls.certificate_file,
    ):
        assert str(Path(file).parent) in mounts
    published = dict(re.findall(r"--publish (\d+):(\d+)", script))
    assert published == {"2762": str(loaded.receive.tls.port), "443": str(loaded.web.port)}


@pytest.mark.parametrize("secret", ["token", "password", "access_key", "secret_key"])
def test_no_secret_stands_in_the_files(secret: str) -> None:
    assert not re.search(rf'\b{secret}\s*=\s*"[^"$]', _TEXT)
