"""A stand-in for a Weights & Biases server: what the real client asks for to download artifacts."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

KEY = "f00dcafe" * 5
ENTITY, PROJECT, NAME = "brats", "segmentation", "model-326li7z2"
REFERENCE = f"{ENTITY}/{PROJECT}/{NAME}"

_INFO = {"id": "cA==", "internalId": "MQ==", "name": PROJECT, "entity": {"name": ENTITY}}
_WHEN = "2026-01-01T00:00:00"


@dataclass(slots=True, kw_only=True)
class Shelf:
    """What the server has, and what it saw.

    Parameters
    ----------
    files : mapping of str to bytes
        Of the one artifact.
    kind : str
        The artifact's type.
    served : mapping of str to bytes
        Contents that are sent instead of the artifact's own.
    delay_s : float
        Before each answer.
    references : mapping of str to str
        Files of the artifact that lie elsewhere.
    """

    files: Mapping[str, bytes]
    kind: str = "model"
    served: Mapping[str, bytes] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def entries(self) -> dict[str, Any]:
        """Return the contents of the artifact's manifest."""
        own = {
            name: {"digest": _md5(content), "size": len(content), "birthArtifactID": "QQ=="}
            for name, content in self.files.items()
        }
        other = {name: {"digest": "eA==", "ref": ref} for name, ref in self.references.items()}
        return {**own, **other}

    @property
    def digest(self) -> str:
        """Return the artifact's digest: over names and digests of its files."""
        lines = "".join(f"{name}:{one['digest']}\n" for name, one in sorted(self.entries.items()))
        header = b"wandb-artifact-manifest-v1\n"
        return hashlib.md5(header + lines.encode(), usedforsecurity=False).hexdigest()


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _artifact(shelf: Shelf) -> dict[str, Any]:
    return {
        "__typename": "Artifact",
        "id": "QQ==",
        "artifactSequence": {"__typename": "ArtifactSequence", "name": NAME, "project": _INFO},
        "versionIndex": 7,
        "artifactType": {"name": shelf.kind},
        "description": None,
        "metadata": None,
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
        "tags": [],
        "historyStep": None,
        "state": "COMMITTED",
        "size": sum(map(len, shelf.files.values())),
        "digest": shelf.digest,
        "commitHash": "abc",
        "fileCount": len(shelf.entries),
        "createdAt": _WHEN,
        "updatedAt": None,
        "aliases": [],
    }


def _membership(shelf: Shelf, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the artifact of a name, where there is one."""
    if (variables["entity"], variables["project"]) != (ENTITY, PROJECT):
        return {"project": None}
    if variables["name"] not in {f"{NAME}:v7", f"{NAME}:latest"}:
        return {"project": {"artifactCollectionMembership": None}}
    collection = {"__typename": "ArtifactSequence", "name": NAME, "project": _INFO}
    membership = {
        "__typename": "ArtifactCollectionMembership",
        "id": "TQ==",
        "versionIndex": 7,
        "createdAt": _WHEN,
        "aliases": [],
        "artifactCollection": collection,
        "artifact": _artifact(shelf),
    }
    return {"project": {"artifactCollectionMembership": membership}}


def _file_urls(shelf: Shelf) -> dict[str, Any]:
    nodes = [
        {"__typename": "File", "name": name, "directUrl": f"{shelf.url}/files/{name}"}
        for name in shelf.files
    ]
    page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    files = {"pageInfo": page, "edges": [{"node": one} for one in nodes]}
    membership = {"artifactMembership": {"files": files}}
    return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", **membership}}}


def _answer(shelf: Shelf, operation: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a GraphQL query."""
    user = {"id": "VQ==", "entity": ENTITY, "username": "u", "email": "", "flags": "{}"}
    file = {"directUrl": f"{shelf.url}/manifest"}
    manifest = {"__typename": "ArtifactManifest", "id": "Rg==", "file": file}
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "Viewer": lambda: {"viewer": {**user, "teams": {"edges": []}}},
        "GetDefaultEntity": lambda: {"viewer": user},
        "ArtifactMembershipByName": lambda: _membership(shelf, variables),
        "FetchArtifactManifest": lambda: {"artifact": {"currentManifest": manifest}},
        "GetArtifactMembershipFileUrls": lambda: _file_urls(shelf),
    }
    return known.get(operation, dict)()


class _Handler(BaseHTTPRequestHandler):
    shelf: ClassVar[Shelf]

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):  # who did not want to wait has gone
            self.wfile.write(content)

    def do_POST(self) -> None:
        """Answer a query of one who has the key."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        expected = base64.b64encode(f"api:{KEY}".encode()).decode()
        operation = str(body.get("operationName") or body["query"].split()[1].partition("(")[0])
        self.shelf.asked.append(operation)
        time.sleep(self.shelf.delay_s)
        if self.headers["Authorization"] != f"Basic {expected}":
            self._send(401, b'{"errors": [{"message": "invalid key"}]}')
            return
        data = _answer(self.shelf, operation, body.get("variables") or {})
        self._send(200, json.dumps({"data": data}).encode())

    def do_GET(self) -> None:
        """Send a file."""
        self.shelf.asked.append(self.path)
        if self.path == "/manifest":
            policy = {
                "storagePolicy": "wandb-storage-policy-v1",
                "storagePolicyConfig": {"storageLayout": "V2"},
            }
            content = {"version": 1, **policy, "contents": self.shelf.entries}
            self._send(200, json.dumps(content).encode())
            return
        name = self.path.removeprefix("/files/")
        self._send(200, self.shelf.served.get(name, self.shelf.files.get(name, b"")))


@contextmanager
def serving(shelf: Shelf) -> Iterator[Shelf]:
    """Serve while the context is open; the shelf's `url` says where."""
    handler = type("Handler", (_Handler,), {"shelf": shelf})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    shelf.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield shelf
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
