"""Bits per byte document by document: against the training's own figure, and with what is known of ratios."""

from __future__ import annotations

import json
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from conftest import TEXT, tiny

from llmctl.console import Console
from llmctl.eval import losses
from llmctl.eval.compare import side_by_side, verdict
from llmctl.eval.config import EvalConfig
from llmctl.eval.losses import document_sums, loss_scores
from llmctl.eval.scores import comparisons
from llmctl.eval.stage import run
from llmctl.eval.uncertainty import bootstrap, difference
from llmctl.formats.tokens import TokenReader
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.train.evaluate import bits_per_byte
from llmctl.verify.statistics import mcnemar
from llmctl.workspace import Workspace


@pytest.mark.parametrize("end", [2, 100, 257, 10_000])
def test_the_documents_add_up_to_what_training_shows(
    shelf, tokenizer: Tokenizer, end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_LOGITS", 1000)  # several blocks of logits
    reader = TokenReader(shelf.tokens("tokens").path, "val")
    model = tiny(tokenizer.vocab_size)
    for p in model.parameters():  # fresh blocks are the identity: let every one do something
        p.data.normal_(0, 0.2)
    end = min(end, reader.tokens)
    nats, size, tokens = document_sums(model, reader, tokenizer.byte_lengths(), end, "fp32").sum(0)
    expected = bits_per_byte(model, reader, tokenizer.byte_lengths(), end, model.config.context, "fp32")
    assert nats / size / log(2) == pytest.approx(expected, rel=1e-5)
    assert tokens == np.count_nonzero(tokenizer.byte_lengths()[reader.window(1, end - 1)])


def test_loss_and_perplexity_are_of_the_same_sums() -> None:
    rows = [
        losses._row(n, nats, size, tokens, whole=True) for n, (nats, size, tokens) in enumerate([(9, 4, 3), (6, 8, 3)])
    ]
    bits, loss, perplexity = loss_scores("m", rows, 0)
    assert (bits["task"], loss["task"], perplexity["task"]) == ("bits_per_byte", "loss", "perplexity")
    assert bits["value"] == pytest.approx(15 / 12 / log(2)) and loss["value"] == 2.5
    assert perplexity["value"] == pytest.approx(exp(2.5)) and bits["n"] == 2
    assert all(s["low"] < s["value"] < s["high"] for s in (bits, loss, perplexity))
    assert loss_scores("m", rows[:1], 0)[0]["low"] is None  # one document says nothing about others


def _ratio(x: np.ndarray) -> np.ndarray:
    return x[..., 0].sum(1) / x[..., 1].sum(1)


def test_the_interval_of_a_ratio_has_the_delta_methods_width() -> None:
    rng = np.random.default_rng(1)
    size = rng.integers(50, 2000, 400)
    table = np.stack([size * rng.normal(1.0, 0.2, 400), size], 1)
    error, low, high = bootstrap(table, _ratio, 0)
    ratio = table[:, 0].sum() / size.sum()
    expected = np.sqrt(400 * np.var(table[:, 0] - ratio * size, ddof=1)) / size.sum()
    assert error == pytest.approx(expected, rel=0.08)
    assert low is not None and high is not None and low < ratio < high
    assert (high - low) / 3.92 == pytest.approx(expected, rel=0.12)


def test_a_difference_is_seen_item_by_item() -> None:
    """A gap far smaller than the spread between documents, but the same in each of them."""
    rng = np.random.default_rng(2)
    size = rng.integers(50, 2000, 60).astype(float)
    first = np.stack([size * rng.normal(1.0, 0.3, 60), size], 1)
    second = first.copy()
    second[:, 0] += size * rng.normal(0.02, 0.01, 60)
    found = difference(first, second, _ratio, 0)
    assert found["p"] == 1e-4 and 0.01 < found["low"] < found["difference"] < found["high"] < 0.03
    assert found == difference(first, second, _ratio, 0)
    back = difference(second, first, _ratio, 0)
    assert back["difference"] == -found["difference"] and back["p"] == found["p"]
    assert difference(first, first, _ratio, 0)["p"] == 1.0


def test_exchanging_right_and_wrong_is_mcnemars_test() -> None:
    first, second = [1.0] * 3 + [0.0] * 9 + [1.0] * 20, [0.0] * 3 + [1.0] * 9 + [1.0] * 20
    assert difference(first, second, lambda x: x.mean(1), 0)["p"] == pytest.approx(mcnemar(3, 9), abs=0.02)


def test_chance_alone_is_significant_as_often_as_it_should_be() -> None:
    rng = np.random.default_rng(3)
    ps = [difference(*rng.normal(size=(2, 12)), lambda x: x.mean(1), i)["p"] for i in range(100)]
    assert 0.35 < np.mean(np.array(ps) < 0.5) < 0.65 and np.mean(np.array(ps) < 0.05) < 0.13


def document(number: int, nats: float, size: float, *, whole: bool = True) -> dict:
    return losses._row(number, nats, size, size, whole=whole)


def test_models_are_paired_by_document_and_lower_is_better() -> None:
    old = [document(n, 100.0 + n, 50.0 + n) for n in range(20)] + [document(20, 9.0, 30.0, whole=False)]
    new = [document(n, 90.0 + n, 50.0 + n) for n in range(20)] + [document(20, 5.0, 17.0, whole=False)]
    rows = {"old": old, "new": new}
    found = [s for model, mine in rows.items() for s in loss_scores(model, mine, 0)]
    made = comparisons(rows, found)
    assert [(c["task"], c["n"]) for c in made] == [("bits_per_byte", 20)]  # cut off elsewhere: another text
    results = {"models": [{"label": "old"}, {"label": "new"}], "scores": found, "paired": made}
    shown = {r["task"]: r for r in side_by_side(results)}
    assert shown["bits_per_byte"]["test"]["difference"] < 0 and verdict(shown["bits_per_byte"]) == "better"
    assert shown["loss"]["test"] is None and verdict(shown["loss"]) == ""  # one test for one thing


def test_an_interval_wherever_the_score_is_shown(shelf, workspace: Workspace, console: Console, tmp_path: Path) -> None:
    shelf.tokens("tokens")
    shelf.model("old", "pretrain", ["tokens"])
    shelf.model("new", "pretrain", ["tokens"], seed=1)
    config = EvalConfig(models=["old", "new"], tasks=["bits_per_byte"], precision="fp32")
    made = run(config, workspace, console)
    results = json.loads(made.file("results.json").read_text())
    score = next(s for s in results["scores"] if s["model"] == "new" and s["task"] == "bits_per_byte")
    assert score["n"] == 5 and score["low"] <= score["value"] <= score["high"]
    (paired,) = results["paired"]
    assert (paired["task"], paired["n"], paired["unit"]) == ("bits_per_byte", 5, "bits a byte") and 0 < paired["p"] <= 1
    shown = f"{score['value']:.4f} ({score['low']:.4f} – {score['high']:.4f})"
    assert shown in made.file("summary.md").read_text()
    assert f"{score['low']:.4f} – {score['high']:.4f}" in made.file("report.html").read_text()


def test_another_tokenizer_is_measured_on_the_same_documents(shelf, workspace: Workspace, console: Console) -> None:
    shelf.tokens("foreign", train_tokenizer(iter([TEXT, "other words altogether"]), 280))
    shelf.model("base", "pretrain")
    for limit, documents in ((1, 1), (100_000, 5)):
        config = EvalConfig(models=["base"], tasks=["bits_per_byte"], tokens="foreign", loss_tokens=limit)
        rows = run(config, workspace, console).file("items/base.jsonl").read_text().splitlines()
        assert [json.loads(r)["id"] for r in rows] == [str(n) for n in range(documents)]
