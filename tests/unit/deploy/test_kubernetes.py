"""The manifests for a cluster hold to the API's schemas, to each other and to the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from node import settings, supervise

_FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
_BASE = _FOLDER / "base"
_API = "1.31"
_OWN = "ghcr.io/neuroseg/neuroseg-node"


def _documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((_BASE / "kustomization.yaml").read_text())["resources"]
    return [one for name in listed for one in yaml.safe_load_all((_BASE / name).read_text())]


_DOCUMENTS = _documents()


def _of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in _DOCUMENTS if one["kind"] == kind}


def _pods() -> dict[str, dict[str, Any]]:
    return {name: one["spec"]["template"]["spec"] for name, one in _of_kind("StatefulSet").items()}


@pytest.mark.parametrize(
    "document", _DOCUMENTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}"
)
def test_each_holds_to_its_schema_and_lies_in_the_namespace(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, _API, strict=True)
    if document["kind"] != "Namespace":
        assert document["metadata"]["namespace"] == "neuroseg"


def test_every_file_is_listed() -> None:
    listed = yaml.safe_load((_BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(
        one.name for one in _BASE.glob("*.yaml") if one.name != "kustomization.yaml"
    )


def test_each_role_has_pods_of_its_own() -> None:
    pods = _pods()
    assert pods.keys() == {*supervise.ROLES, "postgres"}
    for role in supervise.ROLES:
        (container,) = pods[role]["containers"]
        assert container["args"] == ["serve", "--role", role]
        assert container["image"] == _OWN


@pytest.mark.parametrize("name", [*supervise.ROLES, "postgres"])
def test_no_pod_may_more_than_it_needs(name: str) -> None:
    pod = _pods()[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    own = container["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    if name != "postgres":
        assert own["readOnlyRootFilesystem"] is True
    assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize("name", [*supervise.ROLES, "postgres"])
def test_what_a_pod_mounts_is_there(name: str) -> None:
    stateful = _of_kind("StatefulSet")[name]["spec"]
    volumes = {one["name"]: one for one in stateful["template"]["spec"]["volumes"]}
    claimed = {one["metadata"]["name"] for one in stateful.get("volumeClaimTemplates", ())}
    (container,) = stateful["template"]["spec"]["containers"]
    assert {one["name"] for one in container["volumeMounts"]} == {*volumes, *claimed}
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in _of_kind("PersistentVolumeClaim")
        if config := volume.get("configMap"):
            assert config["name"] in _of_kind("ConfigMap")


def test_services_policies_and_budgets_mean_pods_that_are_there() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in _of_kind("StatefulSet").values()
    ]
    selectors = [one["spec"]["selector"] for one in _of_kind("Service").values()]
    for kind, key in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        selectors += [one["spec"][key].get("matchLabels", {}) for one in _of_kind(kind).values()]
    for wanted in selectors:
        assert any(wanted.items() <= own.items() for own in labels), wanted
    for name, one in _of_kind("StatefulSet").items():
        assert one["spec"]["serviceName"] in _of_kind("Service"), name


def _environment(role: str) -> Iterator[tuple[str, str]]:
    for one in _pods()[role]["containers"][0]["env"]:
        yield one["name"], str(one.get("value") or one["valueFrom"])


@pytest.mark.parametrize("role", supervise.ROLES)
def test_the_node_takes_its_settings(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "node.toml"
    config.write_text(_of_kind("ConfigMap")["neuroseg"]["data"]["node.toml"])
    values = {
        "NEUROSEG_JOBS__WORKER_NAME": f"{role}-0",
        "NEUROSEG_LEDGER__URL": "postgresql://neuroseg@postgres/neuroseg",
        "NEUROSEG_JOBS__URL": "postgresql://neuroseg@postgres/neuroseg",
    }
    assert dict(_environment(role)).keys() == values.keys()
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load(config)
    assert loaded.jobs.worker_name == f"{role}-0"
    assert loaded.ledger_url == values["NEUROSEG_LEDGER__URL"]
    mounts = {one["mountPath"] for one in _pods()[role]["containers"][0]["volumeMounts"]}
    assert str(loaded.spool.path) in mounts
    if role == "web":
        assert str(Path(loaded.web.tokens_file).parent) in mounts
        assert "web" in loaded.web.host_names  # as the probes call it


def test_ports_are_those_that_the_node_opens() -> None:
    loaded = settings.Settings()
    ports = {
        role: [one["containerPort"] for one in _pods()[role]["containers"][0].get("ports", ())]
        for role in supervise.ROLES
    }
    assert ports == {
        "receive": [loaded.receive.port],
        "web": [loaded.web.port],
        "work": [],
        "infer": [],
    }


def test_the_overlay_changes_what_is_there() -> None:
    overlay = yaml.safe_load((_FOLDER / "gpu" / "kustomization.yaml").read_text())
    for patch in overlay["patches"]:
        changed = yaml.safe_load((_FOLDER / "gpu" / patch["path"]).read_text())
        original = _of_kind(changed["kind"])[changed["metadata"]["name"]]
        names = {one["name"] for one in original["spec"]["template"]["spec"]["containers"]}
        assert {one["name"] for one in changed["spec"]["template"]["spec"]["containers"]} <= names


def test_the_page_names_every_key_of_the_secret() -> None:
    text = "".join(path.read_text() for path in _BASE.glob("*.yaml"))
    keys = set(re.findall(r"^ +(?:- )?key: (\S+)", text, re.MULTILINE))
    page = (_FOLDER.parents[1] / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    assert keys == {"database-url", "postgres-password", "tokens"}
    for key in keys:
        assert f"--from-literal={key}=" in page or f"--from-file={key}=" in page
