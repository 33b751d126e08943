"""The container files: that they name what is there and agree with the node's own settings."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from node import settings, supervise

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
DOCKERFILES = ("Dockerfile", "deploy/compose/viewer/Dockerfile")
with pytest.MonkeyPatch.context() as token:
    token.setenv("NEUROSEG_WEB__TOKENS", "operator test 0123456789abcdefghijklmnop")
    NODE = settings.load(ROOT / "deploy" / "compose" / "node.toml")
    SHIPPED = settings.load(ROOT / "deploy" / "container" / "node.toml")
ORTHANC = json.loads((ROOT / "deploy/compose/orthanc/orthanc.json").read_text())


def instructions(name: str, word: str) -> list[str]:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return re.findall(rf"(?m)^{word} +(.*)$", text)


def pins(lock: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Return version and hashes by the name of a package."""
    found = {}
    for block in re.split(r"\n(?=[a-z])", lock.read_text().partition("\n")[2]):
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        found[name] = version, frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_travels(name: str) -> None:
    travels = re.findall(r"(?m)^!(.*)$", (ROOT / ".dockerignore").read_text())
    copies = [line.split() for line in instructions(name, "COPY") if "--from" not in line]
    sources = [source for words in copies for source in words[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, one) or source.startswith(f"{one}/") for one in travels), source


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_end_without_rights_and_names_of_images_are_whole(name: str) -> None:
    assert instructions(name, "USER")[-1].split(":")[0] not in {"root", "0"}
    bases = [value for value in instructions(name, "ARG") if "_IMAGE=" in value]
    assert bases
    assert all(value.partition("=")[2].startswith("docker.io/") for value in bases)


def test_the_lock_gives_the_torch_that_the_project_asks_for() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = [one for one in wanted if one.startswith("torch==")]
    for lock in LOCKS:
        assert f"{torch} \\" in lock.read_text().splitlines()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda one: one.stem)
def test_every_version_in_a_lock_has_hashes_and_is_the_same_in_all(lock: Path) -> None:
    found = pins(lock)
    assert found
    assert all(hashes for _, hashes in found.values())
    everything = pins(ROOT / "requirements-test.lock")
    assert found.items() <= everything.items()


def test_the_lock_of_a_node_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for lock, wanted in (
        ("requirements.lock", project["dependencies"] + extras["nnunet"]),
        ("requirements-fetch.lock", extras["fetch"]),
        ("requirements-test.lock", [one for extra in extras.values() for one in extra]),
    ):
        found = pins(ROOT / lock)
        for requirement in map(Requirement, wanted):
            version, _ = found[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, requirement


def test_the_image_comes_with_settings_that_the_node_takes() -> None:
    shipped = SHIPPED
    volumes = [one.strip('[]" ') for one in instructions("Dockerfile", "VOLUME")]
    assert volumes == [str(shipped.spool.path)] == [str(NODE.spool.path)]
    assert {str(shipped.receive.port), str(shipped.web.port)} == set(
        instructions("Dockerfile", "EXPOSE")[0].split()
    )


def test_every_published_port_is_loopback_and_every_service_sealed() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["cap_drop"] == ["ALL"]
        assert not service.get("privileged")
    assert SERVICES["node"]["read_only"]
    assert SERVICES["viewer"]["read_only"]


def test_every_volume_and_mounted_file_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (source[0] == "." and (ROOT / source).exists())


def test_archive_and_node_reach_each_other() -> None:
    (modality,) = ORTHANC["DicomModalities"].values()
    assert modality == [NODE.receive.ae_title, "${NEUROSEG_RECEIVER:-node}", NODE.receive.port]
    (destination,) = NODE.destinations
    assert (destination.host, destination.port) == ("orthanc", ORTHANC["DicomPort"])
    assert destination.ae_title == ORTHANC["DicomAet"]
    root = ORTHANC["DicomWeb"]["Root"].rstrip("/")
    assert NODE.source.url == f"http://orthanc:{ORTHANC['HttpPort']}{root}"
    assert {"node", "orthanc"} < set(SERVICES)


class _Compose(yaml.SafeLoader):  # type: ignore[misc]  # untyped
    """Reads `!override` as the value that it stands before."""


_Compose.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))
MANY: dict[str, Any] = yaml.load((ROOT / "deploy/compose/many.yml").read_text(), _Compose)
ROLES = {
    name: service
    for name, service in MANY["services"].items()
    if "NEUROSEG_JOBS__WORKER_NAME" in service.get("environment", {})
}


def test_of_many_containers_each_runs_a_role_under_a_name_of_its_own() -> None:
    told = [service["command"] for service in ROLES.values()]
    assert all(command[:2] == ["serve", "--role"] for command in told)
    assert {command[2] for command in told} == set(supervise.ROLES)
    names = [service["environment"]["NEUROSEG_JOBS__WORKER_NAME"] for service in ROLES.values()]
    assert len(set(names)) == len(names)
    shared = {f"spool:{NODE.spool.path}", "./deploy/compose/node.toml"}
    for name, service in ROLES.items():
        mounted = {**SERVICES.get(name, {}), **service}["volumes"]
        assert all(any(one.startswith(start) for one in mounted) for start in shared)


@pytest.mark.parametrize("name", ROLES)
def test_many_containers_share_one_database(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = MANY["services"]["postgres"]["environment"]
    for key, value in (ROLES[name]["environment"] | SERVICES["node"]["environment"]).items():
        monkeypatch.setenv(key, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value))
    told = settings.load(ROOT / "deploy" / "compose" / "node.toml")
    assert told.ledger_url == told.jobs_url
    url = sa.make_url(told.ledger_url)
    assert url.host == "postgres"
    assert (url.username, url.database) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
    assert database["POSTGRES_PASSWORD"] == "${POSTGRES_PASSWORD:-" + f"{url.password}" + "}"


def test_many_containers_are_sealed_and_publish_no_other_ports() -> None:
    published = {name: one["ports"] for name, one in MANY["services"].items() if "ports" in one}
    assert published == {"node": [], "balancer": SERVICES["node"]["ports"]}
    for name, service in MANY["services"].items():
        whole = {**SERVICES.get(name, {}), **service}
        assert whole["cap_drop"] == ["ALL"]
        assert whole.get("read_only") or name == "orthanc"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            is_known = source in COMPOSE["volumes"] | MANY["volumes"]
            assert is_known or (ROOT / source).exists()


def test_the_balancer_stands_before_every_receiver() -> None:
    told = (ROOT / "deploy/compose/haproxy.cfg").read_text()
    receivers = [name for name, one in ROLES.items() if one["command"][2] == "receive"]
    assert len(receivers) > 1
    servers = re.findall(r"(?m)^ +server (\S+) (\S+)$", told)
    assert servers == [(name, f"{name}:{NODE.receive.port}") for name in receivers]
    assert re.findall(r"(?m)^ +bind :(\d+)$", told) == [str(NODE.receive.port)]
    assert MANY["services"]["orthanc"]["environment"] == {"NEUROSEG_RECEIVER": "balancer"}
