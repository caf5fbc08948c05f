"""A wheel holds everything that the tree runs with, also what is no Python."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # Offline: the build backend is one of the development packages.
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    made = subprocess.run([*pip, "-w", str(folder), str(ROOT)], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    (found,) = folder.glob("*.whl")
    return zipfile.ZipFile(found)


def _files(folder: Path) -> dict[str, Path]:
    """Where each file of the tree should be in a wheel."""
    inside = folder.name if folder.name != "recipes" else "llmctl/recipes"
    found = (p for p in folder.rglob("*") if p.is_file() and not {"__pycache__", ".DS_Store"} & set(p.parts))
    return {f"{inside}/{p.relative_to(folder).as_posix()}": p for p in found}


@pytest.mark.slow
def test_every_file_of_the_package_and_every_recipe_is_in_it(wheel: zipfile.ZipFile) -> None:
    wanted = _files(ROOT / "llmctl") | _files(ROOT / "recipes")
    names = set(wheel.namelist())
    assert sorted(set(wanted) - names) == []
    data = {name for name in wanted if not name.endswith(".py")}
    # Those that a command opens: were they renamed, the comparison above would say nothing about them.
    for name in ("chat/page.html", "eval/bundle/core.yaml", "eval/tasks/gsm8k.yaml", "recipes/ci.yaml"):
        assert f"llmctl/{name}" in data
    assert all(wheel.read(name) == wanted[name].read_bytes() for name in data)


@pytest.mark.slow
def test_the_recipes_and_tasks_are_found_where_only_the_wheel_is(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = """
import llmctl, sys
from pathlib import Path
from llmctl.eval.core import OWN, read_bundle
from llmctl.eval.task_file import shipped
assert Path(llmctl.__file__).is_relative_to(sys.argv[1]), llmctl.__file__
assert "gsm8k" in shipped() and read_bundle(OWN).items > 0
"""
    run = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{code}", str(tmp_path / "site")]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    llmctl = "from llmctl.cli.main import main; main()"
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n{llmctl}"]
    done = subprocess.run([*run, "run", "ci", "--dry-run"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
