"""An empty node and a client of its web role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from node import logs
from tests.web_cases import WebNode

BASE = "http://127.0.0.1:8080"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WebNode]:
    logs.configure(role="web", strict=True)
    made = WebNode.create(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture(scope="session")
def empty_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Yield a client of a node that stays empty: for requests that must find nothing."""
    made = WebNode.create(tmp_path_factory.mktemp("empty"))
    with TestClient(made.app(), base_url=BASE) as client:
        yield client
    made.ledger.close()


@pytest.fixture
def client(node: WebNode) -> Iterator[TestClient]:
    with TestClient(node.app(), base_url=BASE, raise_server_exceptions=False) as made:
        yield made
