"""The same stages on data that nobody here wrote: HTML folders, WARC files, plain text, and real conversations."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import YOUR_DATA, flags

from llmctl.workspace import Workspace

pytestmark = pytest.mark.slow
LLMCTL = [sys.executable, "-m", "llmctl.cli.main"]


@pytest.fixture
def sources(data: Path, tmp_path: Path) -> list[str]:
    """A folder of real HTML pages, a real WARC file and a plain text."""
    folder = tmp_path / "saved pages"
    folder.mkdir()
    with gzip.open(data / "web/mozilla_readability_pages.jsonl.gz", "rt") as f:
        for i, line in enumerate(f):
            (folder / f"{i}.html").write_text(json.loads(line)["html"], encoding="utf-8")
    return [str(folder), str(data / "web/warc/aut__example.warc.gz"), str(data / "text/llamafactory_wiki_demo.txt")]


@pytest.mark.parametrize(("chats", "read"), [("llms_from_scratch_instructions", 1000), ("oasst_trees", 60)])
def test_your_data_runs_on_real_pages_and_conversations(
    data: Path, tmp_path: Path, sources: list[str], chats: str, read: int
) -> None:
    given = [f"crawl.source={json.dumps(sources)}", f'sft.conversations=["{data}/chat/{chats}.jsonl.gz"]']
    command = [*LLMCTL, "run", "your-data", "-w", str(tmp_path / "w"), "--json", *flags(YOUR_DATA), *flags(given)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    steps = {s["stage"]: s for s in json.loads(done.stdout)}
    assert steps["crawl"]["headline"]["after"] > 70
    kept = steps["filter"]["headline"]
    assert 20 < kept["after"] < kept["before"]
    learned = steps["sft"]["figures"]  # in the small variant few long conversations fit into a row
    assert learned["conversations"] > 0 and learned["conversations"] + learned["too_long"] > 0.9 * read
    workspace = Workspace(tmp_path / "w")
    for artifact in workspace.artifacts():
        assert artifact.damage(deep=True) == []
    outside = {i["name"] for a in workspace.artifacts() for i in a.manifest["inputs"] if i["kind"] == "file"}
    assert {*sources, f"{data}/chat/{chats}.jsonl.gz"} <= outside


def test_your_data_without_data_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*LLMCTL, "run", "your-data", "-w", str(tmp_path / "w")], text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert "source" in done.stderr and "conversations" in done.stderr and "your-data.yaml:" in done.stderr
