"""The assistant: two courses, and an exam of questions that neither of them asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import ASSISTANT, flags

from llmctl.workspace import Workspace

pytestmark = pytest.mark.slow


def test_the_exam_asks_with_and_without_tools_what_no_course_taught(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmctl.cli.main", "run", "assistant", "-w", str(tmp_path), "--json"]
    done = subprocess.run([*command, *flags(ASSISTANT)], text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)
    assert [s["name"] for s in steps][-3:] == ["eval", "without-tools", "answers"]
    workspace = Workspace(tmp_path)

    def asked(course: str, part: str) -> set[str]:
        rows = workspace.find(course, ["conversations"]).file(f"{part}.jsonl").read_text().splitlines()
        return {json.loads(row)["messages"][0]["content"] for row in rows}

    exam = asked("exam", "heldout")
    assert not exam & (asked("course-1", "train") | asked("course-2", "train"))
    reports = [
        json.loads(workspace.find(r, ["report"]).file("results.json").read_text()) for r in ("eval", "without-tools")
    ]
    assert [r["models"][-1]["label"] for r in reports] == ["chat", "chat"]
    asked_of = [{s["task"] for s in r["scores"] if s["model"] == "chat" and s["task"] != "all"} for r in reports]
    assert asked_of == [{"identity", "names", "lookup", "python"}, {"lookup", "python"}]
    answers = workspace.find("answers", ["conversations"])
    assert len(answers.file("train.jsonl").read_text().splitlines()) == 5
