"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmctl.console import Console
from llmctl.workspace import Workspace

# The tests are many small runs; more threads than cores only make them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real public data, or a skip that says why."""
    folder = Path(os.environ.get("LLMCTL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder} is absent (set LLMCTL_TEST_DATA)")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def console() -> Console:
    """A console that prints nothing but warnings."""
    return Console(quiet=True)
