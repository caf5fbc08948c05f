"""`eval --arena`: models answer the same prompts, a judge compares the answers, and the games become ratings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.endpoint import open_writer
from llmctl.errors import UserError
from llmctl.eval.arena_answers import Answer, answers_of, read_kept
from llmctl.eval.arena_judges import Judge, Match, Person, Scored, Written, check_judge, function_judge
from llmctl.eval.arena_page import markdown, write_arena_report
from llmctl.eval.arena_prompts import Prompt, prompts_of
from llmctl.eval.arena_settings import names_model
from llmctl.eval.config import EvalConfig
from llmctl.eval.pairs import cut_note, score_replies, too_long
from llmctl.eval.ratings import ELO, Game, bootstrap, bradley_terry, interval, points, position_bias
from llmctl.eval.subjects import Subject, subjects
from llmctl.generate.engine import Engine
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, load_reward_model, read_config
from llmctl.model.tokenizer import Tokenizer
from llmctl.tools.toolbox import Toolbox
from llmctl.train.device import best_device
from llmctl.verify.statistics import wilson
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import sha256_json, write_atomic, write_json

_REWARDED_AT_ONCE = 16
_PERSON = "person"


def run(config: EvalConfig, workspace: Workspace, console: Console) -> Artifact:
    """Answer, judge, rate, and write the report."""
    players, prompts = gather(config, workspace)
    if off := Toolbox(python=config.python).off():
        console.warn(off)
    with workspace.build(config) as build:
        answers = {p.label: _answers(p, prompts, config, build.scratch, console) for p in players}
        judge = open_judge(config, workspace)
        games = play(judge, prompts, answers, config, build.scratch / "games", console)
        results = rated(config, players, prompts, answers, judge, games)
        results["notes"] += _cut(config, workspace, prompts, answers)
        for note in results["notes"]:
            console.warn(note)
        _write(build.path / "items", prompts, answers, games)
        write_json(build.path / "results.json", results)
        write_atomic(build.path / "summary.md", markdown(results))
        write_arena_report(build.path, results, prompts, answers, games)
        build.figures.update(_figures(results))
    return build.done()


def plan(config: EvalConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """Who plays, and how many judgements that takes."""
    players, prompts = gather(config, workspace)
    pairs = len(players) * (len(players) - 1) // 2
    rows = [(p.label, f"{p.parameters:,} parameters") for p in players]
    at_most = pairs * len(prompts) * (1 + config.arena.both_orders)
    return [
        *rows,
        ("prompts", f"{len(prompts):,}"),
        ("judge", config.arena.judge),
        ("judgements", f"{at_most:,} at most"),
    ]


def gather(config: EvalConfig, workspace: Workspace) -> tuple[list[Subject], list[Prompt]]:
    """The players and their prompts. UserError where there are fewer than two, or one cannot be asked."""
    players = subjects(config.models, workspace)
    if len(players) < 2:
        raise UserError("an arena needs two models or more", "models", "llmctl eval A B --arena")
    if dumb := [p.label for p in players if not p.askable]:
        raise UserError(f"{', '.join(dumb)}: no chat format, so nothing can be asked", "models", "give chat models")
    made = {(a.kind, a.name): a for p in players for a in p.lineage.of_kind("conversations")}
    return players, prompts_of(config, workspace, list(made.values()))


def open_judge(config: EvalConfig, workspace: Workspace) -> Judge:
    """The judge that the settings name."""
    how = config.arena
    if how.judge == "check":
        return check_judge()
    if how.judge == _PERSON:
        return Person()
    if how.judge == "endpoint":
        writer = open_writer(workspace, "", how.endpoint, "a judge")
        return Written(how.endpoint.model, writer, how.judge_tokens, how.endpoint)
    if ":" in how.judge and not how.judge.startswith("hf:"):
        return function_judge(how.judge)
    judge = subjects([how.judge], workspace)[0]
    if not judge.rewards:
        return Written(judge.label, open_writer(workspace, how.judge, how.endpoint), how.judge_tokens)
    return Scored(judge.label, _Rewards(judge))


class _Rewards:
    """A reward model's scores, each answer scored once however many games it plays."""

    def __init__(self, judge: Subject) -> None:
        self._path = judge.path
        self._known: dict[tuple[str, str], float] = {}

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        model, tokenizer = load_reward_model(self._path)
        return model.to(best_device()), tokenizer

    def __call__(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        new = list({(p.id, text): (p.messages, text) for p, text in pairs if (p.id, text) not in self._known}.items())
        for at in range(0, len(new), _REWARDED_AT_ONCE):
            part = new[at : at + _REWARDED_AT_ONCE]
            values = score_replies(*self._model, [pair for _, pair in part])
            self._known |= {key: value for (key, _), value in zip(part, values, strict=True)}
        return [self._known[p.id, text] for p, text in pairs]


def _cut(
    config: EvalConfig, workspace: Workspace, prompts: Sequence[Prompt], answers: dict[str, list[Answer]]
) -> list[str]:
    """A note where a reward model did not see the whole of what it judged."""
    if not names_model(config.arena.judge):
        return []
    judge = subjects([config.arena.judge], workspace)[0]
    if not judge.rewards:
        return []
    said = [(p.messages, a["text"]) for mine in answers.values() for p, a in zip(prompts, mine, strict=True)]
    context = ModelConfig.from_hf(read_config(judge.path), str(judge.path / "config.json")).context
    return cut_note(judge.label, too_long(context, Tokenizer.load(judge.path), said), f"{len(said):,} answers")


def _answers(
    player: Subject, prompts: Sequence[Prompt], config: EvalConfig, scratch: Path, console: Console
) -> list[Answer]:
    def load() -> Engine:
        model, tokenizer = load_model(player.path)
        return Engine(model.to(best_device()), tokenizer, precision=config.precision)

    with console.progress(f"eval {player.label}", len(prompts), "prompts") as bar:
        kept = scratch / player.reference["digest"][:24]
        return answers_of(load, prompts, Toolbox(None, config.python), config, kept, bar)


def matches(
    prompts: Sequence[Prompt], labels: Sequence[str], judge: Judge, both: bool
) -> list[tuple[Prompt, str, str]]:
    """(prompt, who is shown first, who second) of every game, prompt by prompt.

    Where a pair is judged once, a hash says who is first, so that no model always is.
    """
    found = []
    for prompt in prompts:
        for pair in combinations(labels, 2):
            turned = pair[::-1] if int(sha256_json([prompt.id, pair])[:8], 16) % 2 else pair
            found.append((prompt, *turned))
            if both and not judge.pointwise and judge.name != _PERSON:
                found.append((prompt, *turned[::-1]))
    return found


def play(
    judge: Judge,
    prompts: Sequence[Prompt],
    answers: dict[str, list[Answer]],
    config: EvalConfig,
    kept: Path,
    console: Console,
) -> list[dict[str, Any]]:
    """A row a game, in order: prompt, first, second, score, why. Whole batches are kept as they come."""
    texts = {(p.id, label): a["text"] for label, mine in answers.items() for p, a in zip(prompts, mine, strict=True)}
    todo = matches(prompts, list(answers), judge, config.arena.both_orders)
    found: list[dict[str, Any]] = []
    with console.progress(f"judge {judge.name}", len(todo), "games") as bar:
        for at in range(0, len(todo), judge.batch):
            part = todo[at : at + judge.batch]
            asked = [Match(p, texts[p.id, a], texts[p.id, b]) for p, a, b in part]
            done = kept / f"{sha256_json([[m.prompt.id, m.first, m.second] for m in asked])[:24]}-{at}.json"
            rows = read_kept(done, len(part))
            if rows is None:
                rows = [_row(*game, m, v) for game, m, v in zip(part, asked, _judged(judge, asked), strict=True)]
                write_json(done, rows)
            found += rows
            bar.advance(len(part))
    return found


def _judged(judge: Judge, asked: Sequence[Match]) -> list[tuple[float | None, str]]:
    """The judge's verdicts. Two equal answers are a draw, which nobody needs to be asked about."""
    open_ones = [m for m in asked if m.first.strip() != m.second.strip()]
    said = iter(judge.judge(open_ones) if open_ones else [])
    return [
        (0.5, "the same answer") if m.first.strip() == m.second.strip() else ((v := next(said)).score, v.why)
        for m in asked
    ]


def _row(prompt: Prompt, first: str, second: str, match: Match, verdict: tuple[float | None, str]) -> dict[str, Any]:
    longer = len(match.first) - len(match.second)
    return {
        "prompt": prompt.id, "first": first, "second": second, "score": verdict[0], "longer": longer, "why": verdict[1],
    }  # fmt: skip


def games_of(rows: Sequence[dict[str, Any]]) -> list[Game]:
    """The rows that were decided, as games."""
    return [Game(r["prompt"], r["first"], r["second"], r["score"], r["longer"]) for r in rows if r["score"] is not None]


def rated(
    config: EvalConfig,
    players: Sequence[Subject],
    prompts: Sequence[Prompt],
    answers: dict[str, list[Answer]],
    judge: Judge,
    rows: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Everything the report says, as plain data: the same games give the same bytes."""
    labels, games = [p.label for p in players], games_of(rows)
    if not games:
        raise UserError("the judge decided no game", judge.name, "its words are in the way: choose another judge")
    how = config.arena
    both = not judge.pointwise and (how.both_orders or judge.name == _PERSON)
    lengths = {label: sum(len(a["text"]) for a in mine) / len(mine) for label, mine in answers.items()}
    plain = table(labels, games, how.bootstrap, config.seed, position=both, length=False)
    controlled = None
    if how.length_control and any(g.longer for g in games):
        controlled = table(labels, games, how.bootstrap, config.seed, position=both, length=True)
    notes = []
    if plain["drawn"]:
        notes.append("somebody won or lost every game: the ratings are held finite by one drawn game for each model")
    if lost := len(rows) - len(games):
        notes.append(f"{lost:,} of {len(rows):,} judgements could not be read and do not count")
    return {
        "format": 1,
        "mode": "arena",
        "seed": config.seed,
        "settings": {k: v for k, v in how.model_dump(mode="json").items() if k != "endpoint"}
        | {k: getattr(config, k) for k in ("items", "temperature", "max_new_tokens", "python")},
        "judge": {"name": judge.name, "pointwise": judge.pointwise},
        "models": [{**p.facts(), "mean_length": lengths[p.label]} for p in players],
        "prompts": {"count": len(prompts), "sha256": sha256_json([[p.id, p.messages] for p in prompts])},
        "games": len(games),
        "undecided": lost,
        "ratings": plain,
        "length_controlled": controlled,
        "points": points(labels, games),
        "position": _bias(games) if both and how.both_orders else None,
        "notes": notes,
    }


def table(
    labels: Sequence[str], games: Sequence[Game], times: int, seed: int, *, position: bool, length: bool
) -> dict[str, Any]:
    """The ratings with their intervals, the best first, and what the other terms came to, in points of Elo."""
    fit = bradley_terry(labels, games, position=position, length=length)
    drawn = bootstrap(labels, games, times, seed, position=position, length=length)
    rating = fit.ratings()
    rows: list[dict[str, Any]] = []
    for i, label in enumerate(labels):
        low, high = interval(1000 + ELO * drawn[:, i])
        mine = [g for g in games if label in (g.first, g.second)]
        share = sum(g.score if g.first == label else 1 - g.score for g in mine)
        rows.append(
            {
                "model": label, "rating": rating[label], "low": low, "high": high,
                "games": len(mine), "points": share / len(mine) if mine else None,
            }
        )  # fmt: skip
    rows.sort(key=lambda r: -r["rating"])
    k = len(labels)
    terms = {}
    for name, on, value, column in (("position", position, fit.position, k), ("length", length, fit.length, k + 1)):
        if on:
            low, high = interval(ELO * drawn[:, column])
            terms[name] = {"value": ELO * value, "low": low, "high": high}
    return {"rows": rows, "terms": terms, "length_scale": fit.length_scale if length else None, "drawn": fit.drawn}


def _bias(games: Sequence[Game]) -> dict[str, Any]:
    """How often both orders agree, and which place the judge prefers where they do not."""
    bias = position_bias(games)
    low, high = wilson(bias.consistent, bias.pairs)
    return {**asdict(bias), "low": low, "high": high}


def _write(
    folder: Path, prompts: Sequence[Prompt], answers: dict[str, list[Answer]], games: list[dict[str, Any]]
) -> None:
    for label, mine in answers.items():
        rows = [{"id": p.id, "messages": p.messages, **a} for p, a in zip(prompts, mine, strict=True)]
        write_atomic(folder / f"{label}.jsonl", _lines(rows))
    write_atomic(folder.parent / "games.jsonl", _lines(games))


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)


def _figures(results: dict[str, Any]) -> dict[str, Any]:
    """The manifest's figures: the headline is the last model's rating beside the first's."""
    by = {r["model"]: r["rating"] for r in results["ratings"]["rows"]}
    first, last = results["models"][0]["label"], results["models"][-1]["label"]
    return {
        "headline": {"label": "rating", "before": round(by[first], 1), "after": round(by[last], 1), "unit": ""},
        "in": f"{len(by)} models, {results['prompts']['count']:,} prompts",
        "out": f"{results['games']:,} games",
        **{f"{model}/rating": round(rating, 2) for model, rating in by.items()},
    }
