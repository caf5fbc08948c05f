"""Items in the training data: found through the lineage, by runs of words, and marked."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.console import Console
from llmctl.eval.config import EvalConfig
from llmctl.eval.contamination import Haystack
from llmctl.eval.stage import run
from llmctl.workspace import Workspace

LONG = "In the year nine the old keeper of the northern light wrote that seven ships had passed before noon"
SHORT = "Which river flows through the town of Arles today"


def test_thirteen_words_in_a_row_are_found_whatever_stands_between_them() -> None:
    needles = Haystack([LONG, "something else " * 9, SHORT, "four words are nothing"])
    words = LONG.lower().split()
    assert needles.found_in(iter([f"x {LONG} y"])) == {0}
    assert needles.found_in(iter(["(" + "), ".join(words[2:15]) + "!"])) == {0}  # 13 of them, other marks
    assert needles.found_in(iter([" ".join(words[2:14])])) == set()  # 12
    assert needles.found_in(iter([" ".join(words[:9]), " ".join(words[9:])])) == set()  # over two documents
    assert needles.found_in(iter(["nothing", SHORT.upper(), "four words are nothing"])) == {2}
    assert Haystack([]).found_in(iter([LONG])) == set() == needles.found_in(iter([]))


@pytest.mark.parametrize("look", [True, False])
def test_a_task_that_stands_in_the_corpus_is_flagged_with_the_share(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, look: bool
) -> None:
    def corpus(path: Path) -> None:
        (path / "data").mkdir()
        pq.write_table(pa.table({"text": ["other text", f"A page. {LONG}. More.", None]}), path / "data/00000.parquet")

    shelf.put("corpus", "pages", corpus, "filter")
    shelf.put("tokens", "tokens", lambda p: (p / "x").write_text(""), "tokenize", ["pages"])
    shelf.model("base", "pretrain", ["tokens"])
    rows = [{"q": LONG, "o": ["a", "b"]}, {"q": "What is two plus two?", "o": ["c", "d"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "t.yaml").write_text(
        "task: seen\ndataset_path: json\ndata_files: {test: rows.jsonl}\noutput_type: multiple_choice\n"
        "doc_to_text: q\ndoc_to_choice: o\ndoc_to_target: 0\n"
    )
    settings = {"models": ["base"], "tasks": [str(tmp_path / "t.yaml")], "precision": "fp32", "contamination": look}
    made = run(EvalConfig(**settings), workspace, console)
    notes = json.loads(made.file("results.json").read_text())["notes"]
    rows = [json.loads(line) for line in made.file("items/base.jsonl").read_text().splitlines()]
    flagged = [n for n in notes if n.startswith("seen: 50.0 % of its items (1 of 2) stand in pages")]
    assert len(flagged) == look
    assert [r.get("in_training") for r in rows] == (["pages", None] if look else [None, None])
