"""Scaling laws: published coefficients recovered, intervals that hold the truth, a larger run predicted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.scaling_fit import FLOPS, Law, Run, _Problem, bootstrap, fit, predicted, spread
from llmctl.eval.stage import plan, run
from llmctl.workspace import Workspace

CHINCHILLA = Law(1.69, 406.4, 410.7, 0.34, 0.28)  # arXiv 2203.15556, section D.2
REPLICATED = Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # arXiv 2404.10102, table 1
SIZES = (7e7, 2e8, 6e8, 2e9, 8e9, 16e9)
AMOUNTS = (1e9, 4e9, 2e10, 1e11, 4e11)


def runs(law: Law, noise: float = 0.0, seed: int = 0) -> list[Run]:
    rng = np.random.default_rng(seed)
    pairs = [(n, d) for n in SIZES for d in AMOUNTS]
    return [
        Run(f"{n:g}:{d:g}", n, d, law.loss(n, d) * math.exp(noise * rng.standard_normal())) for n, d in pairs
    ]  # fmt: skip


@pytest.mark.parametrize("law", [CHINCHILLA, REPLICATED])
def test_published_coefficients_are_recovered(law: Law) -> None:
    assert fit(runs(law)).coefficients() == pytest.approx(law.coefficients(), rel=1e-6)


def test_small_models_on_little_data_too() -> None:
    law = Law(1.1, 12.0, 30.0, 0.25, 0.33)
    made = [Run("", n, d, law.loss(n, d)) for n in (2e5, 7e5, 2e6, 4e6) for d in (2e5, 5e5, 1e6, 2e6)]
    assert fit(made).coefficients() == pytest.approx(law.coefficients(), rel=1e-4)


def test_the_gradient_is_the_slope() -> None:
    problem = _Problem(runs(REPLICATED, 0.01))
    rng = np.random.default_rng(0)
    x = problem.starts()[:20] + 0.1 * rng.standard_normal((20, 5))
    weights = rng.integers(0, 3, (20, len(problem.n))).astype(float)
    _, slope = problem.cost(x, weights)
    for j in range(5):
        step = np.zeros(5)
        step[j] = 1e-6
        by_hand = (problem.cost(x + step, weights)[0] - problem.cost(x - step, weights)[0]) / 2e-6
        assert by_hand == pytest.approx(slope[:, j], rel=1e-4, abs=1e-2)


def test_outliers_hardly_move_it() -> None:
    made = runs(REPLICATED, 0.001)
    spoiled = [*made[:-2], *(Run(r.name, r.n, r.d, r.loss * 1.3) for r in made[-2:])]
    assert fit(spoiled).loss(1e9, 2e10) == pytest.approx(REPLICATED.loss(1e9, 2e10), rel=0.01)


def test_a_fit_is_no_worse_than_the_truth_on_noisy_runs() -> None:
    """The truth is one of the points that were searched: a fit that lies above it stopped too early."""
    made = runs(REPLICATED, 0.01, 3)

    def cost(law: Law) -> float:
        r = [abs(math.log(law.loss(m.n, m.d) / m.loss)) / 1e-3 for m in made]
        return sum(0.5 * v * v if v <= 1 else v - 0.5 for v in r)

    assert cost(fit(made)) <= cost(REPLICATED)


def test_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(6):
        made = runs(REPLICATED, 0.01, seed)
        laws = bootstrap(made, 60, seed)
        for key, truth in REPLICATED.coefficients().items():
            low, high = np.percentile([law.coefficients()[key] for law in laws], [2.5, 97.5])
            held += low <= truth <= high
    assert held >= 24  # of 30; close to 28 are expected


def test_a_larger_run_lies_inside_its_prediction() -> None:
    inside = 0
    for seed in range(8):
        made = runs(REPLICATED, 0.01, seed)
        small, large = made[:-1], made[-1]
        low, high = predicted(bootstrap(small, 40, seed), spread(small, fit(small)), large.n, large.d, seed)
        inside += low <= large.loss <= high
    assert inside >= 6


@pytest.mark.parametrize("law", [CHINCHILLA, REPLICATED])
def test_the_best_size_for_a_budget_is_the_lowest_point(law: Law) -> None:
    budget = 5.76e23  # Gopher's and Chinchilla's
    n, d = law.best(budget)
    assert FLOPS * n * d == pytest.approx(budget)
    sizes = np.geomspace(n / 10, n * 10, 20001)
    losses = [law.loss(s, budget / FLOPS / s) for s in sizes]
    assert sizes[int(np.argmin(losses))] == pytest.approx(n, rel=1e-3)


def test_published_predictions() -> None:
    """Third approach at Chinchilla's budget: about 40 billion parameters (their table 3); refitted, 20 tokens each."""
    assert 30e9 < CHINCHILLA.best(5.76e23)[0] < 45e9
    n, d = REPLICATED.best(5.76e23)
    assert 15 < d / n < 30


def sweep(path: Path, law: Law = REPLICATED) -> Path:
    lines = ["Parameters,Tokens,Loss,name"] + [f"{r.n},{r.d},{r.loss},{r.name}" for r in runs(law, 0.003)]
    path.write_text("\n".join(lines))
    return path


def test_a_table_of_runs_becomes_a_report(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    how = {"hold_back": "largest", "predict": ["7e10:1.4e12"], "bootstrap": 40}
    config = EvalConfig(models=[str(sweep(tmp_path / "runs.csv"))], mode="scaling", scaling=how)  # type: ignore[arg-type]
    made = run(config, workspace, console)
    results = json.loads(made.file("results.json").read_text())
    held = results["held_back"]
    assert held["name"] == "1.6e+10:4e+11" and held["low"] <= held["measured"] <= held["high"]
    assert abs(held["error"]) < 0.02 and sum(r["held_back"] for r in results["runs"]) == 1
    assert results["predicted"][0]["loss"] == pytest.approx(REPLICATED.loss(7e10, 1.4e12), rel=0.02)
    assert [b["flops"] for b in results["best"]] == pytest.approx([6 * 16e9 * 4e11 * k for k in (10, 100)])
    page = made.file("report.html").read_text()
    assert "<script" not in page and "Held back" not in page and "1.6e+10:4e+11" in page and page.count("<svg") == 2
    assert "mathdefault" not in page and ">1e22<" in page.replace(" ", "")  # the axes' labels are no formulas
    assert "Held back: 1.6e+10:4e+11" in made.file("summary.md").read_text()
    assert made.file("scaling-flops.png").stat().st_size > 1000
    assert made.figures["held_back_error"] == pytest.approx(held["error"], abs=1e-6)
    again = run(config.model_copy(update={"out": "again"}), workspace, console)
    assert again.digest == made.digest  # nothing in it is left to luck
    assert dict(plan(config, workspace))["held back"].startswith("1.6e+10:4e+11")


def test_flops_stand_in_for_tokens_and_jsonl_for_csv(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    rows = [{"Model Size": r.n, "Training FLOP": 6 * r.n * r.d, "loss": r.loss} for r in runs(REPLICATED)]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = EvalConfig(models=[str(tmp_path / "runs.jsonl")], mode="scaling", scaling={"bootstrap": 20})  # type: ignore[arg-type]
    law = json.loads(run(config, workspace, console).file("results.json").read_text())["law"]
    assert {k: v["value"] for k, v in law.items()} == pytest.approx(REPLICATED.coefficients(), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parameters,tokens,loss\n1e6,1e7,3\n", "1 runs of 1 sizes on 1 amounts of data cannot settle"),
        ("parameters,tokens,loss\n1e6,1e7,-3\n", "runs.csv:2: a run needs its parameters"),
        ("parameters,tokens\n1e6,1e7\n", "a run needs its parameters, its tokens .* and its loss"),
        ("parameters,tokens,loss\n0,1e7,3\n", "a run needs its parameters"),
        ("parameters,flops,loss\n0,1e7,3\n", "a run needs its parameters"),
    ],
)
def test_a_poor_table_is_one_line(text: str, said: str, tmp_path: Path, workspace: Workspace, console: Console) -> None:
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        run(EvalConfig(models=[str(tmp_path / "runs.csv")], mode="scaling"), workspace, console)


@pytest.mark.parametrize(
    ("how", "said"), [({"hold_back": "big"}, "no run is called 'big'"), ({"predict": ["7"]}, "N:D")]
)
def test_what_cannot_be_predicted_is_said(
    how: dict, said: str, tmp_path: Path, workspace: Workspace, console: Console
) -> None:
    config = EvalConfig(models=[str(sweep(tmp_path / "runs.csv"))], mode="scaling", scaling={"bootstrap": 20, **how})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        run(config, workspace, console)


def test_a_model_that_went_on_from_another_is_no_run(shelf, workspace: Workspace, console: Console) -> None:
    shelf.model("chat", "sft")
    with pytest.raises(UserError, match="'chat' is no run of its own"):
        run(EvalConfig(models=["chat"], mode="scaling"), workspace, console)


@pytest.mark.parametrize("law", [(1, 0, 2, 0.3, 0.4), (1, 2, 0, 0.3, 0.4), (1, 2, 2, 0, 0), (1, 1e-200, 1e200, 3, 3)])
def test_a_law_in_which_a_term_has_vanished_has_a_best_size_all_the_same(law: tuple[float, ...]) -> None:
    n, d = Law(*law).best(1e15)
    assert n > 0 and d > 0 and 6 * n * d == pytest.approx(1e15) and Law(*law).data_exponent >= 0
    assert Law(*law).loss(n, d) >= 1
