"""Artifacts appear whole or not at all, are resumed or thrown away, and have one writer."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from llmctl.errors import UserError
from llmctl.recipe import InputOf, NoResult, StageSettings
from llmctl.workspace import Workspace
from llmctl.workspace.files import sha256_file


class Config(StageSettings):
    stage: ClassVar[str] = "filter"
    makes: ClassVar[str] = "corpus"
    out: str = "c"
    pages: Annotated[str, InputOf(("pages",), files=True)] = ""
    level: int = 1
    workers: Annotated[int, NoResult()] = 0


def make(workspace: Workspace, config: Config, text: str = "data") -> None:
    with workspace.build(config) as build:
        (build.path / "data.txt").write_text(text)
        build.figures["n"] = 1


def test_the_manifest_says_what_how_and_from_what(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "in.html"
    source.write_text("<p>hello")
    make(workspace, Config(pages=str(source), seed=7))
    found = workspace.find("c")
    m = found.manifest
    assert (m["kind"], m["name"], m["stage"], m["seed"]) == ("corpus", "c", "filter", 7)
    assert m["settings"]["level"] == 1 and m["figures"] == {"n": 1}
    assert m["files"] == [{"path": "data.txt", "bytes": 4, "sha256": sha256_file(found.path / "data.txt")}]
    assert m["inputs"] == [{"kind": "file", "name": str(source), "digest": sha256_file(source)}]
    assert m["versions"]["llmctl"] and m["started"] <= m["finished"]


def test_a_failed_build_leaves_no_artifact_and_is_taken_up_again(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), workspace.build(Config()) as build:
        (build.path / "half.txt").write_text("half")
        raise RuntimeError
    assert workspace.artifacts() == [] and workspace.unfinished() == ["corpus/c"]
    with workspace.build(Config(workers=3)) as build:  # the number of workers changes nothing in the result
        assert build.resumed and (build.path / "half.txt").exists()
    assert workspace.unfinished() == []


def test_other_settings_begin_afresh(workspace: Workspace) -> None:
    with pytest.raises(RuntimeError), workspace.build(Config()) as build:
        (build.path / "half.txt").write_text("half")
        raise RuntimeError
    with workspace.build(Config(level=2)) as build:
        assert not build.resumed and not (build.path / "half.txt").exists()


def test_scratch_and_checkpoints_are_not_part_of_what_is_made(workspace: Workspace) -> None:
    with workspace.build(Config()) as build:
        (build.scratch / "a").write_text("x")
        (build.checkpoints / "b").write_text("x")
        (build.path / "data.txt").write_text("x")
    assert sorted(p.name for p in build.done().path.iterdir()) == ["data.txt", "manifest.json"]


def test_current_follows_settings_inputs_and_files(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "in.html"
    source.write_text("<p>hello")
    config = Config(pages=str(source))
    assert workspace.current(config) is None
    make(workspace, config)
    assert workspace.current(config) is not None
    assert workspace.current(Config(pages=str(source), workers=5)) is not None
    assert workspace.current(Config(pages=str(source), level=2)) is None
    source.write_text("<p>hallo")
    assert workspace.current(config) is None
    source.write_text("<p>hello")
    (workspace.find("c").path / "data.txt").write_text("longer than before")
    assert workspace.current(config) is None


def test_equal_data_has_an_equal_digest_whatever_the_step_log_says(tmp_path: Path) -> None:
    digests = []
    for i in range(2):
        ws = Workspace(tmp_path / str(i))
        with ws.build(Config()) as build:
            (build.path / "data.txt").write_text("same")
            build.metrics.log(step=1, seconds=time.time())
        digests.append(build.done().digest)
    assert digests[0] == digests[1]


def test_one_writer(workspace: Workspace) -> None:
    with workspace.build(Config()), pytest.raises(UserError, match=f"being made by process {os.getpid()}"):
        workspace.build(Config()).__enter__()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a..b", "x" * 101, "a b"])
def test_names_that_could_leave_the_workspace_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(UserError):
        make(workspace, Config(out=name))
    assert not workspace.root.exists() or workspace.artifacts() == []


def test_a_missing_name_is_told_with_the_nearest(workspace: Workspace) -> None:
    make(workspace, Config(out="novels"))
    with pytest.raises(UserError, match="did you mean 'novels'"):
        workspace.find("novls")
    assert workspace.find("corpus/novels").name == "novels"


def test_damage_is_named(workspace: Workspace) -> None:
    make(workspace, Config())
    a = workspace.find("c")
    (a.path / "data.txt").write_text("dXta")
    assert a.damage() == [] and "SHA-256" in a.damage(deep=True)[0]
    (a.path / "data.txt").write_text("d")
    with pytest.raises(UserError, match=r"1 bytes, 4 expected"):
        a.file("data.txt")
    (a.path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest"):
        _ = Workspace(workspace.root).find("c").manifest


def test_metrics_are_rewound_and_a_torn_line_is_left_out(workspace: Workspace) -> None:
    with workspace.build(Config()) as build:
        for i in range(5):
            build.metrics.log(step=i, loss=float("nan") if i == 1 else 1.0)
        with open(build.metrics.path, "a") as f:
            f.write('{"step": 5, "lo')
        build.metrics.rewind(2)
        assert [r["step"] for r in build.metrics.rows()] == [0, 1, 2]
        assert build.metrics.rows()[1]["loss"] is None


def test_a_kill_while_the_replaced_version_is_removed_leaves_no_trace_of_it(tmp_path: Path) -> None:
    """The replaced version still has its manifest, and looks sealed but for its name."""
    ws = Workspace(tmp_path)
    for level in (1, 2):
        with ws.build(Config(level=level)) as build:
            (build.path / "a.txt").write_text(str(level))
            (build.path / "b.txt").write_text(str(level))
    new = ws.artifacts()[0]
    half_removed = tmp_path / ".work" / new.kind / f".old-{new.name}"
    shutil.copytree(new.path, half_removed)
    (half_removed / "a.txt").unlink()
    ws.recover()
    assert [a.name for a in ws.artifacts()] == [new.name] and new.damage(deep=True) == []
    assert not half_removed.exists() and not (tmp_path / new.kind / half_removed.name).exists()


CHILD = textwrap.dedent(
    """
    import sys, time
    sys.path[:0] = [sys.argv[2]]
    from test_workspace_build import Config
    from llmctl.workspace import Workspace
    ws = Workspace(sys.argv[1])
    ws.recover()
    c = Config(level=int(sys.argv[3]))
    if ws.current(c) is None:
        with ws.build(c) as build:
            for i in range(40):
                (build.path / f"{i:02}.txt").write_text(f"{c.level}:" + str(i) * 1000)
                time.sleep(0.002)
    """
)


@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_the_old_or_the_new_artifact(tmp_path: Path) -> None:
    """Two versions are made in turn and killed at random; a reader always finds one of them, whole."""
    rng = random.Random(1)
    killed = 0
    for attempt in range(40):
        level = 1 + attempt % 2
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "w"), str(Path(__file__).parent), str(level)]
        )
        time.sleep(0.25 + rng.random() * 0.45)
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        ws = Workspace(tmp_path / "w")
        ws.recover()
        for a in ws.artifacts():
            assert a.damage(deep=True) == []
            texts = {(a.path / f["path"]).read_text().split(":")[0] for f in a.manifest["files"]}
            assert len(a.manifest["files"]) == 40 and texts == {str(a.manifest["settings"]["level"])}
    assert killed > 5, "the kills came too late to test anything"
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "w"), str(Path(__file__).parent), "1"])
    assert done.returncode == 0
    assert json.loads((tmp_path / "w/corpus/c/manifest.json").read_text())["settings"]["level"] == 1
