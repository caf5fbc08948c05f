"""The shipped recipes, run whole in a small variant; and nothing a person does to a run loses or spoils anything."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import QUICKSTART, flags

from llmctl.workspace import KINDS, Workspace

LLMCTL = [sys.executable, "-m", "llmctl.cli.main"]
pytestmark = pytest.mark.slow


def run(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*LLMCTL, *args], text=True, capture_output=True, timeout=600)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_every_stage_makes_its_artifact_and_the_table_has_its_figure(quickstart: Path) -> None:
    steps = json.loads((quickstart / "steps.json").read_text())
    assert [s["stage"] for s in steps] == [
        "crawl", "filter", "tokenize", "pretrain", "synth", "sft", "synth", "rm", "rl", "eval", "chat",
    ]  # fmt: skip
    for s in steps:
        assert s["headline"]["label"] and s["headline"]["after"] is not None, s
        assert s["out"], s
    workspace = Workspace(quickstart)
    assert {a.kind for a in workspace.artifacts()} == set(KINDS)
    for a in workspace.artifacts():
        assert a.damage(deep=True) == []


def test_a_second_run_makes_nothing(quickstart: Path) -> None:
    before = {a.path: (a.path / "manifest.json").stat().st_mtime_ns for a in Workspace(quickstart).artifacts()}
    steps = json.loads(run("run", "quickstart", "-w", str(quickstart), "--json", *flags(QUICKSTART)).stdout)
    assert not any(s["fresh"] for s in steps)
    assert before == {a.path: (a.path / "manifest.json").stat().st_mtime_ns for a in Workspace(quickstart).artifacts()}


def test_a_changed_setting_is_made_again_with_what_depends_on_it(quickstart: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shutil.copytree(quickstart, root)
    args = ["run", "quickstart", "-w", str(root), "--json", *flags(QUICKSTART), "-s", "rm.train.steps=2"]
    steps = json.loads(run(*args).stdout)
    assert {s["name"] for s in steps if s["fresh"]} == {"judge", "eval"}


def test_the_report_opens_from_disk_with_no_network(quickstart: Path) -> None:
    for name in ("quickstart", "eval"):
        page = (quickstart / "report" / name / "report.html").read_text()
        for loads in ('src="http', "src='http", 'href="http', "@import", "url(http"):
            assert loads not in page
        assert "<table" in page and ("<svg" in page or "data:image/png" in page)


def test_lineage_reaches_from_the_last_model_to_the_pages(quickstart: Path) -> None:
    tree = run("show", "model/solver", "-w", str(quickstart)).stdout
    for name in ("model/chat", "conversations/lessons", "model/base", "tokens/docs", "corpus/docs", "pages/docs"):
        assert name in tree
    found = json.loads(run("show", "solver", "-w", str(quickstart), "--json").stdout)
    assert found["lineage"][0]["name"] == "chat" and found["figures"]["headline"]


def test_one_liners(quickstart: Path, tmp_path: Path) -> None:
    w = ["-w", str(quickstart)]
    listed = json.loads(run("ls", "--json", *w).stdout)
    assert all({"kind", "name", "stage", "created", "bytes"} <= set(row) for row in listed)
    answer = run("chat", "solver", "-p", "2+2=", "--temperature", "0", "-s", "max_new_tokens=8", *w)
    again = run("chat", "solver", "-p", "2+2=", "--temperature", "0", "-s", "max_new_tokens=8", *w)
    assert answer.stdout == again.stdout and answer.stdout.endswith("\n")
    text = "hello deep seek: ünïcode\n"
    ids = subprocess.run(
        [*LLMCTL, "tokenize", "-", "--tokenizer", "docs", *w], input=text, text=True, capture_output=True
    )
    assert ids.returncode == 0 and all(part.isdigit() for part in ids.stdout.split()), ids.stderr
    back = subprocess.run(
        [*LLMCTL, "tokenize", "-", "--tokenizer", "docs", "--decode", *w],
        input=ids.stdout,
        text=True,
        capture_output=True,
    )
    assert back.stdout.rstrip("\n") == text.rstrip("\n")
    run("export", "solver", str(tmp_path / "hf"), *w)
    assert (tmp_path / "hf/model.safetensors").is_file() and (tmp_path / "hf/config.json").is_file()


def digests(root: Path) -> dict[str, str]:
    return {f"{a.kind}/{a.name}": a.digest for a in Workspace(root).artifacts() if a.kind != "report"}


def test_kills_at_random_moments_change_nothing_in_the_result(quickstart: Path, tmp_path: Path) -> None:
    """SIGKILL again and again, all over the run: what comes out is what an undisturbed run makes, byte for byte."""
    root = tmp_path / "w"
    (root / "pages").mkdir(parents=True)
    shutil.copytree(quickstart / "pages" / "docs", root / "pages" / "docs")  # a crawl's records carry the time of day
    rng = random.Random(int(os.environ.get("LLMCTL_KILL_SEED", "0")))
    args = [*LLMCTL, "run", "quickstart", "-w", str(root), *flags(QUICKSTART)]
    kills = 0
    for attempt in range(60):
        child = subprocess.Popen(args, stderr=subprocess.PIPE, start_new_session=True, text=True)
        # From before anything is done to some steps on; later attempts get longer, so that the run comes to its end.
        try:
            _, said = child.communicate(timeout=1.0 + rng.random() * (4 + attempt / 2))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            kills += 1
            for a in Workspace(root).artifacts():
                assert a.damage(deep=True) == [], f"after kill {kills}"
            continue
        assert child.returncode == 0, said
        break
    else:
        pytest.fail("the run never came to its end")
    assert kills >= 3
    assert digests(root) == digests(quickstart)


@pytest.mark.parametrize("when", [0.6, 3.0, 6.0])
def test_ctrl_c_says_how_to_go_on_and_exits_130(quickstart: Path, tmp_path: Path, when: float) -> None:
    root = tmp_path / "w"
    (root / "pages").mkdir(parents=True)
    shutil.copytree(quickstart / "pages" / "docs", root / "pages" / "docs")
    child = subprocess.Popen(
        [*LLMCTL, "run", "quickstart", "-w", str(root), *flags(QUICKSTART)], stderr=subprocess.PIPE, text=True
    )
    time.sleep(when)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "run the same command again to go on" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
