"""The stage as a whole: real pages in, a corpus out, whatever the number of workers and however often it is killed."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE, corpus_of, table, write_jsonl

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.filter.config import FilterConfig
from llmctl.filter.sources import _SHARD, divide, documents, input_files
from llmctl.filter.stage import plan, run
from llmctl.workspace import Foreign, Workspace

COLUMNS = ["text", "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count"]
HARD = ["", " ", "\r\n\r\n", "\u00a0", "x" * 1_000_000, "\ud800 lone", PROSE.replace("\n", "\r\n"), "a{b}", "0"]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of pages and texts: good ones, a duplicate, a German one, a list, hard ones."""
    folder = tmp_path / "pages"
    folder.mkdir()
    paragraphs = "".join(f"<p>{line}</p>" for line in PROSE.replace("mill", "castle").split("\n"))
    (folder / "page.html").write_text(f"<html><body><article>{paragraphs}</article></body></html>")
    german = "Der Ausschuss traf sich am Dienstag, um über die alte Brücke am Wehr zu sprechen. "
    texts = [
        PROSE,
        PROSE + " It rained.",
        PROSE,
        german * 5,
        "- the point of this list is that it repeats\n" * 80,
        PROSE + " Write to a.b@c.org.",
    ]
    write_jsonl(folder / "texts.jsonl", texts + HARD)
    return folder


def test_every_document_is_kept_or_dropped_with_its_rule(pages: Path, workspace: Workspace) -> None:
    made = corpus_of(pages, workspace, workers=1)
    kept, dropped = table(made), table(made, "dropped")
    assert list(kept[0]) == COLUMNS
    assert sorted(r["id"] for r in kept + dropped) == sorted(["page.html"] + [f"d{i}" for i in range(15)])
    assert [r["id"] for r in kept] == ["page.html"]
    assert {r["id"]: r["rule"] for r in dropped} == {
        "d0": "minhash.duplicate",  # one word differs from the page
        "d1": "minhash.duplicate",
        "d2": "exact.duplicate",
        "d3": "language.score",
        "d4": "gopher_repetition.dup_line_frac",
        "d5": "minhash.duplicate",
        **{f"d{i}": "extract.empty" for i in (6, 7, 8, 9)},
        "d10": "language.score",  # a megabyte without a space
        "d11": "language.score",
        "d12": "exact.duplicate",  # the C4 step has joined its lines by "\n" too
        "d13": "language.score",
        "d14": "language.score",
    }
    assert {r["detail"] for r in dropped if r["rule"] == "exact.duplicate"} == {"d0"}


def test_the_counts_add_up(pages: Path, workspace: Workspace) -> None:
    made = corpus_of(pages, workspace, workers=1, minhash={"enabled": False})
    counts = json.loads(made.file("counts.json").read_text())
    kept, dropped = table(made), table(made, "dropped")
    assert counts["documents"] == 16
    before = 16
    for name, step in counts["steps"].items():
        assert before - step["documents"] == sum(step["dropped"].values()), name
        assert all(rule.startswith(f"{name}.") for rule in step["dropped"])
        before = step["documents"]
    assert before == len(kept) and counts["steps"]["pii"]["bytes"] == sum(len(r["text"].encode()) for r in kept)
    figures = made.figures
    assert figures["headline"] == {"label": "documents kept", "before": 16, "after": len(kept), "unit": ""}
    assert sum(figures["dropped"].values()) == len(dropped) == 16 - len(kept)
    assert figures["in"].startswith("16 documents, 1.0 MB") and figures["out"].startswith(f"{len(kept)} documents")
    assert figures["replaced"] == {"email": 1} and figures["languages"] == {"en": len(kept)}
    assert [r["text"] for r in kept if "email@example.com" in r["text"]] == [PROSE + " Write to email@example.com."]


def test_thresholds_and_text_stand_beside_what_is_dropped(tmp_path: Path, workspace: Workspace) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", ["The one of two. " * 30, "Short and to the point of it."])
    made = corpus_of(source, workspace, workers=1, gopher_repetition={"enabled": False})
    rows = table(made, "dropped")
    assert (rows[1]["rule"], rows[1]["value"], rows[1]["threshold"]) == ("gopher_quality.short_doc", 7.0, 50.0)
    assert rows[1]["text"] == "Short and to the point of it."
    slim = corpus_of(source, workspace, workers=1, out="slim", dropped_text=False)
    assert all(r["text"] is None for r in table(slim, "dropped"))


def test_steps_are_switched_off_and_tuned(tmp_path: Path, workspace: Workspace) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", ["Short and to the point of it.", PROSE])
    off = {s: {"enabled": False} for s in ("gopher_repetition", "c4", "fineweb_quality", "minhash")}
    assert len(table(corpus_of(source, workspace, workers=1, out="a", **off))) == 1
    tuned = corpus_of(source, workspace, workers=1, out="b", gopher_quality={"min_words": 7}, **off)
    assert len(table(tuned)) == 2


def test_a_filter_of_ones_own(tmp_path: Path, workspace: Workspace) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", [PROSE, PROSE.replace("bridge", "ferry")])
    made = corpus_of(
        source, workspace, workers=2, own={"function": "own_filters:no_bridges"}, minhash={"enabled": False}
    )
    assert [r["id"] for r in table(made)] == ["d1"]
    assert table(made, "dropped")[0]["rule"] == "own.bridge"
    with pytest.raises(UserError, match=r"own_filters.py:\d+: your filter own_filters:raises raised KeyError"):
        corpus_of(source, workspace, workers=1, out="c", own={"function": "own_filters:raises"})


def test_nothing_kept_is_a_warning_and_nothing_read_a_mistake(
    tmp_path: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", ["too short"])
    made = run(FilterConfig(pages=str(source), workers=1), workspace, Console(quiet=True))
    assert made.figures["documents_kept"] == 0 and table(made) == []
    assert "no document was kept" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(UserError, match="no documents"):
        run(FilterConfig(pages=str(empty), out="e", workers=1), workspace, Console(quiet=True))


def test_damaged_input_is_passed_over_and_named_or_with_strict_a_mistake(
    data: Path, tmp_path: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.compress(b"".join(json.dumps({"id": f"d{i}", "text": PROSE}).encode() + b"\n" for i in range(9)))
    source = tmp_path / "cut.jsonl.gz"
    source.write_bytes(whole[:-20])
    made = corpus_of(source, workspace, workers=1)
    assert made.figures["damaged"] == 1
    assert "cut.jsonl.gz" in capsys.readouterr().err
    assert json.loads(made.file("counts.json").read_text())["damaged"][0][0] == "cut.jsonl.gz"
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz"):
        corpus_of(source, workspace, out="s", workers=1, strict=True)


def test_tokens_are_counted_where_a_tokenizer_is_named(tmp_path: Path, workspace: Workspace) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "tok").mkdir()
    tokenizer.save(str(tmp_path / "tok" / "tokenizer.json"))
    source = write_jsonl(tmp_path / "t.jsonl", [PROSE])
    made = corpus_of(source, workspace, workers=1, tokenizer=str(tmp_path / "tok"))
    assert [r["token_count"] for r in table(made)] == [len(PROSE.split())] == [made.figures["tokens"]]
    assert table(corpus_of(source, workspace, workers=1, out="b"))[0]["token_count"] is None


def test_a_corpus_without_scores_is_filtered_as_any_text_is(tmp_path: Path, workspace: Workspace) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", [PROSE, PROSE + " Two.", "short"])
    first = corpus_of(source, workspace, workers=1, out="a", minhash={"enabled": False}, scores=False)
    again = corpus_of("a", workspace, workers=1, out="b")
    assert [r["id"] for r in table(first)] == ["d0", "d1"] and [r["id"] for r in table(again)] == ["d0"]
    assert again.figures["documents_in"] == 2 and again.manifest["inputs"] == [first.reference()]
    assert not (first.path / "scores").exists()


def test_the_plan_says_what_would_be_read(tmp_path: Path, workspace: Workspace) -> None:
    source = write_jsonl(tmp_path / "t.jsonl", [PROSE])
    rows = dict(plan(FilterConfig(pages=str(source), c4={"enabled": False}), workspace))  # type: ignore[arg-type]
    assert "1 files" in rows["input"] and "gopher_quality" in rows["steps"] and "c4" not in rows["steps"]
    assert "no pages or corpus named" in dict(plan(FilterConfig(pages="later"), workspace))["input"]


def test_shards_cover_every_document_once_in_order(tmp_path: Path) -> None:
    counts = [3, 100, 40, 1000, 0, 5000, 1]
    for i, count in enumerate(counts):
        write_jsonl(tmp_path / f"{i}.jsonl", [f"{i}-{n}" for n in range(count)])
    files = input_files(Foreign(tmp_path, ""))
    shards = divide(files, counts)
    assert [s.number for s in shards] == list(range(len(shards)))
    texts = [d.text for shard in shards for d in documents(shard)]
    assert texts == [f"{i}-{n}" for i, count in enumerate(counts) for n in range(count)]
    sizes = [sum(1 for _ in documents(shard)) for shard in shards]
    assert min(sizes[:-1]) > 30 and sizes[:2] == [103, 40] and max(sizes) == 313  # 5,000 in 16 parts
    assert all(size <= _SHARD for size in sizes[:10])


@pytest.mark.slow
def test_real_pages_give_the_same_corpus_on_any_number_of_workers(
    data: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gzip.open(data / "web" / "article_extraction_benchmark.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f][:40]
    source = tmp_path / "pages.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    # Two shards, or there would be nothing to divide.
    monkeypatch.setattr("llmctl.filter.sources._SHARD", 20)
    one = corpus_of(source, workspace, out="one", workers=1)
    two = corpus_of(source, workspace, out="two", workers=2)
    assert one.digest == two.digest
    assert 20 < one.figures["documents_kept"] < 40 == one.figures["documents_in"]
    # The kept text is the article: most of its marked body is there.
    gold = {r["url"]: r["gold_text"].split() for r in rows}
    shares = [len(set(gold[r["url"]]) & set(r["text"].split())) / len(set(gold[r["url"]])) for r in table(one)]
    assert sum(shares) / len(shares) > 0.85


@pytest.mark.slow
def test_real_archives_are_read(data: Path, workspace: Workspace) -> None:
    made = corpus_of(data / "web" / "warc" / "pywb__iana.warc.gz", workspace, workers=2)
    kept, dropped = table(made), table(made, "dropped")
    assert kept and len(kept) + len(dropped) == made.figures["documents_in"] > 10
    assert all(r["url"].startswith("http") and r["date"] and r["language"] == "en" for r in kept)


@pytest.mark.slow
def test_killed_at_random_moments_the_corpus_is_the_same(data: Path, tmp_path: Path) -> None:
    source = data / "text" / "c4_demo.jsonl.gz"  # 300 documents in 3 shards
    command = [sys.executable, str(Path(__file__).parent / "filter_until_killed.py"), str(source)]
    subprocess.run([*command, str(tmp_path / "calm"), "1"], check=True)
    calm = Workspace(tmp_path / "calm").find("corpus", ["corpus"])
    moments, killed = random.Random(1), 0
    for _ in range(5):
        process = subprocess.Popen([*command, str(tmp_path / "wild"), "2"])
        try:
            process.wait(moments.uniform(0.3, 2.5))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    else:
        subprocess.run([*command, str(tmp_path / "wild"), "2"], check=True)
    wild = Workspace(tmp_path / "wild")
    wild.recover()
    assert killed and wild.find("corpus", ["corpus"]).digest == calm.digest
    assert calm.figures["documents_kept"] > 150


@pytest.mark.slow
def test_what_is_done_is_not_done_again(data: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FilterConfig(pages=str(data / "text" / "c4_demo.jsonl.gz"), workers=1)
    seen: list[int] = []

    def interrupt_after_two(task: object) -> int:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(task.shard.number)  # type: ignore[attr-defined]
        return real(task)  # type: ignore[arg-type]

    from llmctl.filter import passes

    real = passes.screen_shard
    monkeypatch.setattr(passes, "screen_shard", interrupt_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(config, workspace, Console(quiet=True))
    assert seen == [0, 1]
    times = {p: p.stat().st_mtime for p in workspace.root.glob(".work/corpus/corpus/scratch/screened/*/*")}
    assert len(times) >= 10
    seen.clear()
    monkeypatch.setattr(passes, "screen_shard", lambda task: seen.append(task.shard.number) or real(task))
    run(config, workspace, Console(quiet=True))
    assert seen == [2]


def test_files_are_readable_by_others(pages: Path, workspace: Workspace) -> None:
    made = corpus_of(pages, workspace, workers=1)
    found = pq.read_table(made.path / "data" / "00000.parquet")
    assert found.column_names == COLUMNS
    assert str(found.schema.field("language_score").type) == "double"
    assert str(found.schema.field("token_count").type) == "int64"
    assert pq.ParquetFile(made.path / "data" / "00000.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
