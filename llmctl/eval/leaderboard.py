"""What the reports of a workspace say about its models: each model's newest scores, and ratings over all arenas.

Reports name models by the digest of what was measured, so a score never passes to a model that was made again under
the same name. Nothing heavy is imported: `ls`-like commands and model cards use this too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmctl.errors import UserError
from llmctl.eval.ratings import ELO, Game, bootstrap, bradley_terry, interval
from llmctl.report.markdown import table
from llmctl.workspace import Artifact, Workspace

_NAMES = {"all": "all items", "bits_per_byte": "bits per byte", "pairs": "pairs of answers"}
_TIMES = 200  # bootstrap resamples: a leaderboard is looked at often, and should come at once


def reports(workspace: Workspace) -> Iterator[tuple[Artifact, dict[str, Any]]]:
    """(report, results) of every report of `eval` that can be read, oldest first."""
    found = []
    for report in workspace.artifacts("report"):
        try:
            if report.manifest.get("stage") == "eval":
                results = json.loads(report.file("results.json").read_text(encoding="utf-8"))
                found.append((str(report.manifest.get("finished")), report, results))
        except (UserError, OSError, ValueError):
            continue  # a damaged report says nothing; `llmctl show` names the damage
    found.sort(key=lambda f: (f[0], f[1].name))
    yield from ((report, results) for _, report, results in found)


def evals_of(workspace: Workspace, digest: str) -> list[dict[str, Any]]:
    """The newest score of each task for the model with `digest`: task, value, low, high, n, unit, report, settings."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for report, results in reports(workspace):
        labels = {m["label"] for m in results.get("models", []) if m.get("digest") == digest}
        for s in results.get("scores", []):
            if s["model"] in labels and s["value"] is not None and (not s["group"] or s["task"] == "names"):
                key = s["task"], s["group"]
                found.pop(key, None)
                found[key] = {k: s.get(k) for k in ("task", "group", "value", "low", "high", "n", "unit")} | {
                    "report": report.name,
                    "date": str(report.manifest.get("finished"))[:10],
                }
    return list(found.values())


def leaderboard(workspace: Workspace) -> dict[str, Any]:
    """Every measured model of the workspace with its scores, and its rating by each judge that compared it."""
    models = {a.digest: a.name for a in workspace.artifacts("model") if _sound(a)}
    ratings = _ratings(workspace, models)
    rows = []
    for digest, name in models.items():
        scores = {
            score_name(s): {k: s[k] for k in ("value", "low", "high", "n", "unit", "report")}
            for s in evals_of(workspace, digest)
        }
        mine = {judge: board[digest] for judge, board in ratings.items() if digest in board}
        if scores or mine:
            rows.append({"name": name, "digest": digest, "scores": scores, "ratings": mine})
    rows.sort(key=_order)
    return {"models": rows, "judges": list(ratings)}


def markdown(board: Mapping[str, Any]) -> str:
    """The leaderboard as a table: ratings first, then scores, a model a row."""
    if not board["models"]:
        return "no report speaks about a model of this workspace: llmctl eval MODEL\n"
    tasks = list(dict.fromkeys(t for m in board["models"] for t in m["scores"]))
    rows = [
        [
            m["name"],
            *(_rating(m["ratings"].get(j)) for j in board["judges"]),
            *(cell(m["scores"].get(t)) for t in tasks),
        ]
        for m in board["models"]
    ]
    return table(["model", *(f"rating by {j}" for j in board["judges"]), *tasks], rows)


def cell(score: Mapping[str, Any] | None) -> str:
    """A score with its interval, where it has one."""
    if not score:
        return ""
    scale, digits, sign = (100, 1, " %") if score["unit"] == "share" else (1, 4, "")
    value = f"{scale * score['value']:.{digits}f}{sign}"
    if score["low"] is None or score["high"] is None:
        return value
    return f"{value} ({scale * score['low']:.{digits}f} – {scale * score['high']:.{digits}f})"


def scores_table(scores: Sequence[Mapping[str, Any]]) -> str:
    """One model's scores for its card."""
    rows = [(score_name(s), cell(s), s["n"], f"{s['report']}, {s['date']}") for s in scores]
    return table(["task", "score (95 % interval)", "items", "report"], rows)


def _ratings(workspace: Workspace, models: Mapping[str, str]) -> dict[str, dict[str, dict[str, float]]]:
    """Judge -> digest -> rating, over the games of all its arenas between models that are still there."""
    games: dict[str, list[Game]] = {}
    for report, results in reports(workspace):
        if results.get("mode") != "arena":
            continue
        digests = {m["label"]: m["digest"] for m in results["models"]}
        mine = games.setdefault(results["judge"]["name"], [])
        for row in _games(report):
            first, second = digests[row["first"]], digests[row["second"]]
            if row["score"] is not None and {first, second} <= set(models) and first != second:
                mine.append(Game(row["prompt"], first, second, row["score"], row["longer"]))
    return {judge: _rated(mine) for judge, mine in games.items() if mine}


def _rated(games: Sequence[Game]) -> dict[str, dict[str, float]]:
    players = list(dict.fromkeys(p for g in games for p in (g.first, g.second)))
    both = any(g.first > g.second for g in games) and any(g.first < g.second for g in games)
    rating = bradley_terry(players, games, position=both).ratings()
    drawn = bootstrap(players, games, _TIMES, 0, position=both)
    ends = [interval(1000 + ELO * drawn[:, i]) for i in range(len(players))]
    return {
        p: {"rating": rating[p], "low": low, "high": high} for p, (low, high) in zip(players, ends, strict=True)
    }  # fmt: skip


def _games(report: Artifact) -> list[dict[str, Any]]:
    try:
        text = report.file("games.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]
    except (UserError, OSError, ValueError):
        return []


def _order(row: Mapping[str, Any]) -> tuple[float, float, str]:
    """The highest rated first; those that nobody rated by their share over all items."""
    ratings = [r["rating"] for r in row["ratings"].values()]
    share = row["scores"].get("all items", {}).get("value")
    return -(max(ratings) if ratings else float("-inf")), -(share if share is not None else -1), row["name"]


def _rating(found: Mapping[str, float] | None) -> str:
    return f"{found['rating']:.0f} ({found['low']:.0f} – {found['high']:.0f})" if found else ""


def score_name(score: Mapping[str, Any]) -> str:
    """A score's name as a person reads it."""
    name = _NAMES.get(score["task"], score["task"])
    return f"{name}: {score['group']}" if score["group"] else str(name)


def _sound(model: Artifact) -> bool:
    try:
        return bool(model.digest)
    except (UserError, KeyError):
        return False
