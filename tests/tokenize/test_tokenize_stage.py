"""The stage: from any corpus to shards that hold exactly its text, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.tokens import TokenReader, TokenWriter
from llmctl.model.tokenizer import Tokenizer
from llmctl.recipe import StageSettings
from llmctl.tokenize import stage
from llmctl.tokenize.config import TokenizeConfig
from llmctl.workspace import Artifact, Workspace

TEXTS = [f"Document {n}: the number {n * n} is {n} times {n}, naïve 🙂.\nIt ends here." for n in range(120)]


class MakesCorpus(StageSettings):
    stage = "filter"
    makes = "corpus"


def corpus(workspace: Workspace, texts: list[str], name: str = "c") -> Artifact:
    """A corpus artifact as the filter stage makes it, in two shards, with something dropped beside it."""
    with workspace.build(MakesCorpus(out=name)) as build:
        for number, part in enumerate((texts[::2], texts[1::2])):
            for folder, rows in (("data", part), ("dropped", ["never to be seen"])):
                (build.path / folder).mkdir(exist_ok=True)
                table = pa.table({"text": rows, "id": [str(n) for n in range(len(rows))]})
                pq.write_table(table, build.path / folder / f"{number:05d}.parquet")
    return build.done()


def config(**changes) -> TokenizeConfig:
    return TokenizeConfig(**({"corpus": "c", "out": "t", "vocab_size": 400} | changes))


def texts_of(made: Artifact, split: str) -> list[str]:
    tokenizer = Tokenizer.load(made.path / "tokenizer")
    reader = TokenReader(made.path, split)
    found = [reader.document(n) for n in range(reader.documents)]
    assert all(ids[-1] == tokenizer.eos_id and tokenizer.eos_id not in ids[:-1] for ids in found)
    return [tokenizer.decode(ids[:-1]) for ids in found]


def test_the_shards_hold_the_corpus(workspace: Workspace, console: Console) -> None:
    corpus(workspace, [*TEXTS, "", TEXTS[0]])
    made = stage.run(config(val_fraction=0.1, shard_tokens=500), workspace, console)
    train, val = texts_of(made, "train"), texts_of(made, "val")
    assert sorted(train + val) == sorted([*TEXTS, TEXTS[0]])
    assert val and not set(train) & set(val)
    assert len(list(made.files(".bin"))) > 3
    figures = made.figures
    assert figures["train_documents"] == len(train) and figures["val_documents"] == len(val)
    size = sum(len(t.encode()) for t in val)
    assert figures["bytes_per_token"] == pytest.approx(size / (figures["val_tokens"] - len(val)), abs=1e-3)
    assert figures["headline"]["before"] == 1.0 < figures["headline"]["after"]


def test_the_tokenizer_is_an_artifact_of_its_own(workspace: Workspace, console: Console) -> None:
    corpus(workspace, TEXTS)
    made = stage.run(config(), workspace, console)
    tokenizer = workspace.find("t", ["tokenizer"])
    digest = Tokenizer.load(tokenizer.path).digest
    assert (
        digest
        == Tokenizer.load(made.path / "tokenizer").digest
        == json.loads((made.path / "meta.json").read_text())["tokenizer"]
    )
    assert {"corpus", "tokenizer"} == {i["kind"] for i in made.manifest["inputs"]}


def test_a_tokenizer_that_is_there_is_not_learned_again(workspace, console, monkeypatch) -> None:
    corpus(workspace, TEXTS)
    first = stage.run(config(), workspace, console)
    monkeypatch.setattr(stage, "train_tokenizer", None)
    assert stage.run(config(), workspace, console).digest == first.digest


def test_a_given_tokenizer_is_used(workspace: Workspace, console: Console, data: Path) -> None:
    corpus(workspace, TEXTS)
    made = stage.run(config(tokenizer=str(data / "tokenizers/gpt2")), workspace, console)
    tokenizer = Tokenizer.load(made.path / "tokenizer")
    assert tokenizer.encode("hello deep seek") == [31373, 2769, 5380] and tokenizer.chats
    assert not workspace.artifacts("tokenizer")
    again = stage.run(config(out="u", tokenizer="tokens/t"), workspace, console)
    assert Tokenizer.load(again.path / "tokenizer").digest == tokenizer.digest


@pytest.mark.parametrize("after", [1, 40, 90])
def test_an_interrupted_run_ends_with_the_same_artifact(workspace, console, monkeypatch, after: int) -> None:
    monkeypatch.setattr(stage, "_BATCH_CHARS", 500)
    monkeypatch.setattr(stage, "_SAVE_EVERY", 2)
    corpus(workspace, TEXTS)
    whole = stage.run(config(out="whole", shard_tokens=700), workspace, console)
    added, calls = TokenWriter.add, 0

    def dies(self: TokenWriter, *args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt
        added(self, *args)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(TokenWriter, "add", dies)
        stage.run(config(shard_tokens=700), workspace, console)
    assert not workspace.artifacts("tokens")[1:]
    resumed = stage.run(config(shard_tokens=700), workspace, console)
    assert resumed.digest == whole.digest


def test_the_number_of_threads_changes_nothing(workspace: Workspace, console: Console, monkeypatch) -> None:
    corpus(workspace, TEXTS)
    digests = set()
    for name, parallel in (("a", "true"), ("b", "false")):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        digests.add(stage.run(config(out=name), workspace, console).digest)
    assert len(digests) == 1


def test_one_text_file_is_enough(workspace: Workspace, console: Console, tmp_path: Path) -> None:
    text = "\n".join(TEXTS)
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    made = stage.run(config(corpus=str(tmp_path / "mine.txt")), workspace, console)
    train, val = texts_of(made, "train"), texts_of(made, "val")
    assert len(train) == len(val) == 1 and (train[0] + val[0]).strip() == text


def test_lone_surrogates_in_json_do_no_harm(workspace: Workspace, console: Console, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": t}) + "\n" for t in [*TEXTS, "half a pair \ud83d here"])
    (tmp_path / "mine.jsonl").write_text(rows)
    made = stage.run(config(corpus=str(tmp_path / "mine.jsonl")), workspace, console)
    assert "half a pair \ufffd here" in texts_of(made, "train") + texts_of(made, "val")


@pytest.mark.slow
def test_a_wide_vocabulary_takes_wide_ids(workspace: Workspace, console: Console, data: Path) -> None:
    corpus(workspace, TEXTS[:5])
    made = stage.run(config(tokenizer=str(data / "tokenizers/cl100k_base.tiktoken")), workspace, console)
    assert TokenReader(made.path, "train").dtype == np.uint32


def test_a_damaged_shard_is_named(workspace: Workspace, console: Console) -> None:
    made = corpus(workspace, TEXTS)
    shard = made.path / "data/00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20] + b"\0" * 20)
    with pytest.raises(UserError, match=r"00001\.parquet"):
        stage.run(config(), workspace, console)


def test_a_corpus_without_text_is_a_users_mistake(workspace: Workspace, console: Console) -> None:
    corpus(workspace, ["", ""])
    with pytest.raises(UserError, match="no text"):
        stage.run(config(), workspace, console)
    assert not workspace.artifacts("tokens")


def test_the_plan_says_what_would_be_made(workspace: Workspace) -> None:
    corpus(workspace, TEXTS)
    rows = dict(stage.plan(config(), workspace))
    assert "400" in rows["tokenizer"] and "uint16" in rows["disk"] and set(rows) >= {"corpus", "tokens"}
    assert not workspace.artifacts("tokens")


@pytest.mark.parametrize(("vocab", "digits"), [(8192, 1), (32768, 2), (100_000, 3)])
def test_the_digits_follow_the_vocabulary(vocab: int, digits: int) -> None:
    assert TokenizeConfig(corpus="c").digits_for(vocab) == digits
    assert TokenizeConfig(corpus="c", digits=3).digits_for(vocab) == 3


def test_published_vocabularies_are_measured_on_the_same_held_out_text(
    data: Path, workspace: Workspace, console: Console
) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    import base64

    corpus(workspace, TEXTS)
    ranks = data / "tokenizers/cl100k_base.tiktoken"
    compare = [str(data / "tokenizers/gpt2"), str(ranks)]
    made = stage.run(config(val_fraction=0.2, compare=compare), workspace, console)
    found = made.figures["bytes_per_token_of"]
    assert set(found) == {"gpt2", "cl100k_base.tiktoken", "t"} and found["t"] == made.figures["bytes_per_token"]
    pattern = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
        r"\s+(?!\S)|\s"
    )
    lines = (line.split() for line in ranks.read_bytes().splitlines())
    reference = tiktoken.Encoding(
        "x", pat_str=pattern, mergeable_ranks={base64.b64decode(b): int(r) for b, r in lines}, special_tokens={}
    )
    held_out = texts_of(made, "val")
    expected = sum(len(t.encode()) for t in held_out) / sum(len(reference.encode(t)) for t in held_out)
    assert found["cl100k_base.tiktoken"] == pytest.approx(expected, abs=1e-4)


def test_a_vocabulary_to_compare_with_that_is_not_there(workspace: Workspace, console: Console) -> None:
    corpus(workspace, TEXTS)
    with pytest.raises(UserError, match="nowhere"):
        stage.run(config(compare=["nowhere.tiktoken"]), workspace, console)
