"""Score once, decide later: a corpus decided again is the corpus that the pages would have given."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE, corpus_of, table, write_jsonl

from llmctl.errors import UserError
from llmctl.filter import passes
from llmctl.filter.config import FilterConfig
from llmctl.filter.stage import plan
from llmctl.filter.sweep import sweep
from llmctl.workspace import Artifact, Workspace

BULLETS = "- the point of this list is that it repeats\n" * 80
CODE = PROSE + "\nvoid main() { return; }"
GERMAN = "Der Ausschuss traf sich am Dienstag, um über die alte Brücke am Wehr zu sprechen. " * 5


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    more = [PROSE.replace("bridge", f"bridge number {i}").replace("river", "stream" * (i % 3)) for i in range(5)]
    return write_jsonl(tmp_path / "t.jsonl", [PROSE, BULLETS, CODE, GERMAN, "Short and to the point.", "", *more])


def outcome(corpus: Artifact) -> tuple[Any, ...]:
    """What is kept, with its text, and why the others went."""
    dropped = {r["id"]: (r["rule"], tuple(r["rules"]), r["value"], r["threshold"]) for r in table(corpus, "dropped")}
    counts = json.loads(corpus.file("counts.json").read_text())
    return [(r["id"], r["text"]) for r in table(corpus)], dropped, counts["steps"]


CHANGES: list[dict[str, Any]] = [
    {"gopher_quality": {"min_words": 4, "stop_words": None}, "gopher_repetition": {"top_2_gram": None}},
    {"gopher_repetition": {"enabled": False}, "fineweb_quality": {"enabled": False}},
    {"language": {"threshold": None}},
    {"c4": {"min_sentences": 2}, "minhash": {"enabled": False}, "exact": {"enabled": False}},
    {"minhash": {"buckets": 2, "hashes": 2}},
    {"c4": {"curly_bracket": False}},
    {"c4": {"enabled": False}},
    {"language": {"languages": ["de"]}, "gopher_quality": {"enabled": False}},
    {"pii": {"enabled": False}, "dropped_text": False},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: "-".join(c))
def test_deciding_again_gives_what_filtering_again_gives(
    texts: Path, workspace: Workspace, change: dict[str, Any]
) -> None:
    corpus_of(texts, workspace, workers=1, out="a")
    again = corpus_of("a", workspace, workers=1, out="b", **change)
    fresh = corpus_of(texts, workspace, workers=1, out="c", **change)
    assert outcome(again) == outcome(fresh)
    assert outcome(again) != outcome(workspace.find("a", ["corpus"])) or "pii" in change


def test_what_was_not_said_again_stays(texts: Path, workspace: Workspace) -> None:
    corpus_of(texts, workspace, workers=1, out="a", gopher_quality={"min_words": 4}, minhash={"enabled": False})
    again = corpus_of("a", workspace, workers=1, out="b", gopher_quality={"stop_words": None})
    third = corpus_of("b", workspace, workers=1, out="c", c4={"min_sentences": 1})
    both = {"gopher_quality": {"min_words": 4, "stop_words": None}, "minhash": {"enabled": False}}
    assert outcome(again) == outcome(corpus_of(texts, workspace, workers=1, out="d", **both))
    assert outcome(third) == outcome(corpus_of(texts, workspace, workers=1, out="e", c4={"min_sentences": 1}, **both))


def test_thresholds_alone_measure_nothing(texts: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_of(texts, workspace, workers=1, out="a")
    rows = dict(plan(FilterConfig(pages="a", gopher_quality={"alpha": 0.5}), workspace))  # type: ignore[arg-type]
    assert "decided again" in rows["work"]
    monkeypatch.setattr("llmctl.filter.measure.Measurer.__call__", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(passes, "count_documents", lambda *_: pytest.fail("counted"))
    again = corpus_of("a", workspace, workers=1, out="b", gopher_quality={"alpha": 0.5})
    assert again.figures["documents_in"] == 11


def test_every_rule_of_every_document_is_a_column(texts: Path, workspace: Workspace) -> None:
    made = corpus_of(texts, workspace, workers=1, out="a")
    found = pq.read_table(made.path / "scores" / "00000.parquet").to_pylist()
    rules = [name for name in found[0] if "." in name]
    assert len(found) == 11 and len(rules) > 35
    code = next(r for r in found if r["id"] == "d2")
    # Behind its first failure too: the bracket drops it, and FineWeb's rules have looked at it.
    assert code["c4.curly_bracket"] == 7 and code["fineweb_quality.line_punct_ratio"] == pytest.approx(6 / 7)
    bullets = next(r for r in table(made, "dropped") if r["id"] == "d1")
    assert bullets["rule"] == "gopher_repetition.dup_line_frac" == bullets["rules"][0] and len(bullets["rules"]) > 5
    assert "gopher_quality.too_many_bullets" in bullets["rules"]
    assert math.isnan(next(r for r in found if r["id"] == "d5")["gopher_quality.short_doc"])


def test_what_needs_the_pages_says_so(tmp_path: Path, workspace: Workspace) -> None:
    page = tmp_path / "p.html"
    paragraphs = "".join(f"<p>{line}</p>" for line in PROSE.split("\n"))
    page.write_text(f"<link rel=canonical href=https://bad.example/x><article>{paragraphs}</article>")
    corpus_of(page, workspace, workers=1, out="a", url={"domains": ["bad.example"]})
    with pytest.raises(UserError, match="dropped before their text was extracted"):
        corpus_of("a", workspace, workers=1, out="b", url={"enabled": False})
    with pytest.raises(UserError, match="extraction's settings"):
        corpus_of("a", workspace, workers=1, out="b", extract={"tables": False})
    still = corpus_of("a", workspace, workers=1, out="c", url={"subwords": ["badex"]}, gopher_quality={"alpha": 0.1})
    assert table(still, "dropped")[0]["rule"] == "url.subdomain"


def test_a_sweep_counts_what_each_threshold_would_keep(texts: Path, workspace: Workspace) -> None:
    made = corpus_of(texts, workspace, workers=1, out="a", minhash={"enabled": False}, exact={"enabled": False})
    config = FilterConfig(pages="a")
    found = sweep(config, made, ["gopher_quality.min_words=3,50,112", "c4.min_sentences=1,5"])
    assert [s.settings for s in found][:2] == [
        {"gopher_quality.min_words": "3", "c4.min_sentences": "1"},
        {"gopher_quality.min_words": "3", "c4.min_sentences": "5"},
    ]
    for i, swept in enumerate(found):
        sets = {"gopher_quality": {"min_words": int(swept.settings["gopher_quality.min_words"])},
                "c4": {"min_sentences": int(swept.settings["c4.min_sentences"])}}  # fmt: skip
        corpus = corpus_of("a", workspace, workers=1, out=f"s{i}", pii={"enabled": False}, **sets)
        assert (swept.documents, swept.kept) == (11, corpus.figures["documents_kept"])
        assert swept.bytes == corpus.figures["bytes_out"] and swept.dropped == corpus.figures["dropped"]
    assert len({s.kept for s in found}) > 1
    with pytest.raises(UserError, match="changes what is measured"):
        sweep(config, made, ["c4.javascript=true,false"])
    with pytest.raises(UserError, match=r"--sweep 'alpha'"):
        sweep(config, made, ["alpha"])
    with pytest.raises(UserError, match="gopher_quality"):
        sweep(config, made, ["gopher_quality.alpa=1,2"])


def test_the_page_shows_the_funnel_and_both_sides_of_a_threshold(texts: Path, workspace: Workspace) -> None:
    made = corpus_of(texts, workspace, workers=1, out="a")
    page = (made.path / "report.html").read_text()
    assert "<script" not in page and "11 documents read" in page
    assert "gopher_quality.short_doc</b> drops below 50" in page and "Short and to the point." in page
    alone = page[page.index("c4.curly_bracket") :][:6000]
    assert "alone 1" in alone and "void main() { return; }" in alone
