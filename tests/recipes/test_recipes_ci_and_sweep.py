"""The recipes that measure: a gate for CI, and a sweep that ends in a scaling law."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import CI, SWEEP, flags

from llmctl.workspace import Workspace

pytestmark = pytest.mark.slow


def run(recipe: str, root: Path, *sets: str, code: int = 0) -> list[dict]:
    command = [sys.executable, "-m", "llmctl.cli.main", "run", recipe, "-w", str(root), "--json", *flags([*sets])]
    done = subprocess.run(command, text=True, capture_output=True, timeout=600)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_ci_passes_and_then_stops_where_a_bound_is_missed(tmp_path: Path) -> None:
    steps = run("ci", tmp_path, *CI)
    assert [s["name"] for s in steps][-2:] == ["gate", "answer"] and not any(s["missed"] for s in steps)
    summary = Workspace(tmp_path).find("gate", ["report"]).file("summary.md").read_text()
    assert summary.startswith("| task | base | chat | chat against base |")
    stopped = run("ci", tmp_path, *CI, "gate.fail_above=[base/bits_per_byte=0.01]", code=3)
    assert stopped[-1]["name"] == "gate" and stopped[-1]["missed"] and not any(s["fresh"] for s in stopped)


def test_a_sweep_ends_in_a_law(tmp_path: Path) -> None:
    steps = run("sweep", tmp_path, *SWEEP)
    runs = [s for s in steps if s["stage"] == "pretrain"]
    assert len(runs) == 16 and len({s["figures"]["parameters"] for s in runs}) == 4
    assert len({s["figures"]["tokens"] for s in runs}) == 4
    results = json.loads(Workspace(tmp_path).find("scaling", ["report"]).file("results.json").read_text())
    assert results["held_back"]["name"] == "d4-s832" and results["loss"] == "bits per byte"
    by = {r["name"]: r for r in results["runs"]}
    for s in runs:
        assert (by[s["name"]]["n"], by[s["name"]]["d"]) == (s["figures"]["parameters"], s["figures"]["tokens"])
        assert by[s["name"]]["loss"] == s["figures"]["bits_per_byte_after"]
