"""CORE on a small bundle, against the definition written out in a few lines: one pass a prompt, losses and argmax."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.core import OWN, read_bundle
from llmctl.eval.stage import run
from llmctl.model.folder import load_model
from llmctl.workspace import Workspace

WORDS = ["cheese", "bread", "town", "small", "famous", "answer", "know", "who", "that"]


def put(folder: Path, shots: int) -> Path:
    rng = random.Random(1)

    def some(n: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(n))

    data: dict[str, list[dict[str, Any]]] = {
        "multiple_choice": [
            {"query": some(4), "choices": [some(1) + " x", some(2) + " y"], "gold": i % 2} for i in range(9)
        ],
        "schema": [
            {"context_options": ["a " + some(3), "b " + some(2)], "continuation": some(3), "gold": i % 2}
            for i in range(7)
        ],
        "language_modeling": [{"context": some(4) + "  ", "continuation": some(1)} for _ in range(8)],
    }
    tasks = []
    (folder / "eval_data/deep").mkdir(parents=True)
    for kind, rows in data.items():
        (folder / f"eval_data/deep/{kind}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        tasks.append(
            f"- label: my_{kind}\n  dataset_uri: deep/{kind}.jsonl\n  num_fewshot: [{shots}]\n"
            f"  icl_task_type: {kind}\n" + ("  continuation_delimiter: ': '\n" if kind == "schema" else "")
        )
    (folder / "core.yaml").write_text("icl_tasks:\n" + "".join(tasks))
    lines = [f"my_{kind},x,{base}" for kind, base in zip(data, (50, 25.5, 0), strict=True)]
    (folder / "eval_meta_data.csv").write_text("Eval Task,Task Category,Random baseline\n" + "\n".join(lines) + "\n")
    return folder


def reference(model: Any, tokenizer: Any, folder: Path, kind: str, shots: int, gap: str) -> float:
    """The accuracy of one task, as arXiv 2406.11794 and nanochat describe it."""
    rows = [json.loads(line) for line in (folder / f"eval_data/deep/{kind}.jsonl").read_text().splitlines()]
    random.Random(1337).shuffle(rows)
    right = 0
    for n, row in enumerate(rows):
        few = random.Random(1234 + n).sample([i for i in range(len(rows)) if i != n], shots) if shots else []
        shown = ""
        for e in (rows[i] for i in few):
            if kind == "multiple_choice":
                shown += e["query"] + gap + e["choices"][e["gold"]] + "\n\n"
            elif kind == "schema":
                shown += e["context_options"][e["gold"]] + gap + e["continuation"] + "\n\n"
            else:
                shown += e["context"].strip() + gap + e["continuation"] + "\n\n"
        if kind == "multiple_choice":
            texts = [shown + row["query"] + gap + c for c in row["choices"]]
        elif kind == "schema":
            texts = [shown + c + gap + row["continuation"] for c in row["context_options"]]
        else:
            front = shown + row["context"].strip() + gap
            texts = [front.strip(), front + row["continuation"]]
        ids = [[tokenizer.eos_id, *tokenizer.encode(t)] for t in texts]
        losses, greedy = [], []
        for i in ids:
            with torch.no_grad():
                chances = model.logits(model(torch.tensor([i])))[0].log_softmax(-1)
            losses.append([0.0] + [-float(chances[t - 1, i[t]]) for t in range(1, len(i))])
            greedy.append([True] + [int(chances[t - 1].argmax()) == i[t] for t in range(1, len(i))])
        if kind == "language_modeling":
            right += all(greedy[1][len(ids[0]) :])
            continue
        if kind == "multiple_choice":
            start = next(t for t in range(99) if len({i[t] if t < len(i) else -1 for i in ids}) > 1)
            starts = [start] * len(ids)
        else:
            end = next(t for t in range(1, 99) if len({i[-t] for i in ids}) > 1) - 1
            starts = [len(i) - end for i in ids]
        means = [sum(x[s:]) / len(x[s:]) for x, s in zip(losses, starts, strict=True)]
        right += means.index(min(means)) == row["gold"]
    return right / len(rows)


@pytest.mark.parametrize("shots", [0, 3])
def test_core_is_what_its_definition_says(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, shots: int
) -> None:
    folder = put(tmp_path / "bundle", shots)
    made = shelf.model("base", "pretrain", seed=2)
    settings = {"models": ["base"], "tasks": ["core"], "core": str(folder), "precision": "fp32"}
    report = run(EvalConfig(**settings), workspace, console)
    scores = {s["task"]: s for s in json.loads(report.file("results.json").read_text())["scores"]}
    model, tokenizer = load_model(made.path)
    centred = []
    for kind, gap, base in (("multiple_choice", " ", 0.5), ("schema", ": ", 0.255), ("language_modeling", " ", 0.0)):
        accuracy = reference(model, tokenizer, folder, kind, shots, gap)
        assert scores[f"core/my_{kind}"]["value"] == pytest.approx(accuracy)
        centred.append((accuracy - base) / (1 - base))
    assert scores["core"]["value"] == pytest.approx(sum(centred) / 3)
    assert scores["core"]["low"] <= scores["core"]["value"] <= scores["core"]["high"]
    rows = report.file("items/base.jsonl").read_text().splitlines()
    assert len(rows) == 24


def test_a_model_that_knows_the_continuation_is_right(tmp_path: Path, tokenizer) -> None:
    """Language modelling counts only where every token is the likeliest: a model trained on one text knows it."""
    from llmctl.eval.core import _ask
    from llmctl.generate.engine import Engine

    folder = put(tmp_path / "bundle", 0)
    text = {"context": "What is 2 + 3? The answer", "continuation": "is 5."}
    (folder / "eval_data/deep/language_modeling.jsonl").write_text((json.dumps(text) + "\n") * 2)
    items = read_bundle(folder).tasks[2]
    model = tiny(tokenizer.vocab_size)
    assert not _ask(Engine(model, tokenizer, "fp32"), items, [0])[0]["correct"]
    ids = torch.tensor([[tokenizer.eos_id, *tokenizer.encode("What is 2 + 3? The answer is 5.")]])
    fit = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model.logits(model(ids[:, :-1]))[0], ids[0, 1:])
        fit.zero_grad()
        loss.backward()
        fit.step()
    assert _ask(Engine(model, tokenizer, "fp32"), items, [0])[0]["correct"]


def test_the_bundle_that_comes_along_is_whole(shelf, workspace: Workspace, console: Console) -> None:
    bundle = read_bundle(OWN)
    assert len(bundle.tasks) == 8 and bundle.items > 200
    for items in bundle.tasks:
        for row in items.rows:
            choices = row.get("choices") or row.get("context_options") or [""]
            assert len(set(choices)) == len(choices) and 0 <= row.get("gold", 0) < len(choices)
    shelf.model("base", "pretrain")
    report = run(EvalConfig(models=["base"], tasks=["core"], limit=4, precision="fp32"), workspace, console)
    assert json.loads(report.file("results.json").read_text())["data"]["core"]["items"] == 32


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("core.yaml", "icl_tasks: []", "core.yaml:1"),
        ("core.yaml", None, "cannot read it"),
        ("eval_meta_data.csv", "Eval Task,Random baseline\nother,1\n", "'my_multiple_choice' is not in"),
        ("eval_meta_data.csv", "a,b\n1,2\n", "needs the columns"),
        ("eval_data/deep/schema.jsonl", "", "3 examples are wanted"),
        ("eval_data/deep/schema.jsonl", '{"continuation": "x"}\n', "schema.jsonl:1: 'context_options' is missing"),
    ],
)
def test_what_is_wrong_with_a_bundle_is_one_line(tmp_path: Path, file: str, text: str | None, told: str) -> None:
    folder = put(tmp_path / "bundle", 3)
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(UserError, match=told):
        read_bundle(folder)
