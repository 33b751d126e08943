"""What the whole nodes of these tests work on: small studies and a small network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny_models
from tests.small_studies import SmallStudies


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> SmallStudies:
    return SmallStudies(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.written(tmp_path_factory.mktemp("model") / "tiny", skull="any")
