"""The command line as a person meets it: help, names, exit codes, one clear line for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.workspace import KINDS


def llmctl(*args: str, cwd: Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmctl.cli.main", *args],
        cwd=cwd, input=stdin, text=True, capture_output=True, timeout=120, env={**os.environ, **env},
    )  # fmt: skip


def test_help_shows_the_stages_in_the_order_of_the_lifecycle(tmp_path: Path) -> None:
    text = llmctl("--help", cwd=tmp_path).stdout
    order = ["crawl", "filter", "tokenize", "pretrain", "synth", "sft", "rm", "rl", "chat", "eval"]
    workspace = ["run", "ls", "show", "export", "init", "doctor"]
    lines = [line.strip("│ ").split(" ")[0] for line in text.splitlines()]
    found = [word for word in lines if word in order + workspace]
    assert found == order + workspace
    assert text.index("The lifecycle") < text.index("crawl  ") < text.index("The workspace") < text.index("doctor  ")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['llmctl', '--help']\n"
        "from llmctl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'datasets', 'pydantic', 'yaml', 'trafilatura', 'fasttext', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True)
    assert done.stderr.strip() in ("[]", "['pydantic']"), done.stderr  # newer Typers import pydantic themselves


STAGES = ["crawl", "filter", "tokenize", "pretrain", "synth", "sft", "rm", "rl", "chat", "eval"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_the_shared_options(stage: str, tmp_path: Path) -> None:
    text = llmctl(stage, "--help", cwd=tmp_path, COLUMNS="160", NO_COLOR="1").stdout
    for option in ("--out", "--recipe", "--set", "--dry-run", "--overwrite", "--workspace", "--json", "--quiet"):
        assert option in text, (stage, option)
    assert ("--workers" in text) == (stage in ("filter", "tokenize"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["filtr"], "Did you mean 'filter'"),
        (["show", "nothing"], "no artifact named 'nothing'"),
        (["show", "modle/x"], "did you mean 'model'"),
        (["ls", "modles"], "did you mean 'model'"),
        (["filter"], "'pages' is missing"),
        (["filter", "nothing"], "no pages or corpus named 'nothing'"),
        (["pretrain", "../x"], "cannot be a name"),
        (["pretrain", "t", "-s", "trian.steps=3"], "unknown key 'trian' (did you mean 'train'?)"),
        (["pretrain", "t", "-s", "train.steps"], "has no key=value"),
        (["run", "quickstat"], "did you mean 'quickstart'"),
        (["crawl", "demo", "-o", "a/b"], "cannot be a name"),
        (["crawl", "demo", "-s", "seed=[1"], "not YAML"),
        (["sft", "-r", "nowhere.yaml"], "no recipe 'nowhere.yaml'"),
        (["export", "x", "d", "--format", "ggfu"], "did you mean 'gguf'"),
        (["ls", "-w", "a-file"], "is a file, not a folder"),
        (["crawl", "--worker", "3"], "No such option"),
    ],
)
def test_a_mistake_gets_one_clear_line_and_exit_2(args: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    done = llmctl(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_an_empty_workspace(tmp_path: Path) -> None:
    assert json.loads(llmctl("ls", "--json", cwd=tmp_path).stdout) == []
    done = llmctl("ls", cwd=tmp_path)
    assert done.stdout == "" and "llmctl crawl demo" in done.stderr
    assert json.loads(llmctl("init", "--json", cwd=tmp_path).stdout)["workspace"] == str(tmp_path / "workspace")


def test_the_workspace_is_w_then_the_environment(tmp_path: Path) -> None:
    llmctl("init", cwd=tmp_path, LLMCTL_WORKSPACE="fromenv")
    llmctl("init", "-w", "fromflag", cwd=tmp_path, LLMCTL_WORKSPACE="fromenv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fromenv", "fromflag"]


def test_doctor_finds_damage(tmp_path: Path) -> None:
    folder = tmp_path / "workspace/corpus/c"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(
        json.dumps({"files": [{"path": "x", "bytes": 3, "sha256": ""}], "digest": ""})
    )
    done = llmctl("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert any(f["state"] == "bad" and "missing" in f["what"] for f in json.loads(done.stdout))


def test_a_pipe_that_closes_early_is_no_error(tmp_path: Path) -> None:
    for kind in KINDS:
        for i in range(60):
            folder = tmp_path / f"workspace/{kind}/n{i}"
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text(
                json.dumps({"files": [], "digest": "", "stage": "x", "finished": "", "figures": {"x": "y" * 500}})
            )
    done = subprocess.run(
        f"{sys.executable} -m llmctl.cli.main ls --json | head -c 10",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


def test_completion_knows_the_names(tmp_path: Path) -> None:
    folder = tmp_path / "workspace/model/novelist"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    done = llmctl(
        cwd=tmp_path, _LLMCTL_COMPLETE="complete_bash", COMP_WORDS="llmctl chat nov", COMP_CWORD="2",
    )  # fmt: skip
    assert "novelist" in done.stdout
