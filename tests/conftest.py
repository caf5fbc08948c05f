"""Fixtures that every test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# For `small`, the recipes' small variants, and `files`, what the docs' commands read.
sys.path[:0] = [str(Path(__file__).parent / "recipes"), str(Path(__file__).parent / "docs")]

from small import QUICKSTART, flags

from llmctl.console import Console
from llmctl.workspace import Workspace

# One thread a test: two processes with two OpenMP threads each on two cores run twenty times slower, not two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled_yet() -> None:
    """Each file of tests begins with no compiled graphs: a piece of code may be compiled eight times in a process."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch"].compiler.reset()


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


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the whole quickstart, in its small variant; what the run printed as JSON is in steps.json."""
    root = tmp_path_factory.mktemp("quickstart") / "w"
    command = [sys.executable, "-m", "llmctl.cli.main", "run", "quickstart", "-w", str(root), "--json"]
    done = subprocess.run([*command, *flags(QUICKSTART)], text=True, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (root / "steps.json").write_text(done.stdout)
    return root
