"""The report a person reads: scores with intervals, what two models differ in, curves, and the answers themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.eval.compare import NOTE, difference, p_value, side_by_side, verdict
from llmctl.eval.questions import LOSS, PAIRS
from llmctl.eval.scores import ALL
from llmctl.eval.summary import compared, models_of, percent, score_rows, task_name
from llmctl.report import html
from llmctl.report.plots import Bars, Chart, bar_chart, curves

Row = dict[str, Any]
# A page of all the answers of a large run would be tens of megabytes; items/ has them all.
_EXAMPLES_A_TASK = 40


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    answers: Mapping[str, Sequence[Row]],
    pairs: Mapping[str, Sequence[Row]],
    runs: Iterable[tuple[str, Sequence[Row]]],
) -> None:
    """Write `report.html` and the PNGs beside it.

    `answers` and `pairs` are the item rows by model; `runs` are (title, metrics rows) of each training behind them.
    """
    bars = score_chart(results)
    training = [(title, curves(rows, f"curve-{_file_name(title)}-")) for title, rows in runs]
    for drawn in [*bars, *(c for _, found in training for c in found)]:
        (folder / f"{drawn.name}.png").write_bytes(drawn.png)
    parts = [
        _tiles(results),
        html.section("Scores", _score_table(results), html.charts(bars)),
        html.section("Known and made-up names", _names_table(results)),
        html.section("The answers' form", _form_table(results)),
        html.section("One model against another, on the same items", _paired_table(results)),
        html.section("How the training went", *(_training(title, found) for title, found in training)),
        html.section("Answers", *_examples(answers), *_pair_examples(pairs)),
        html.section("How this was measured", *_method(results)),
    ]
    labels = ", ".join(m["label"] for m in results["models"])
    html.write_page(folder / "report.html", f"How good: {labels}", parts, _subtitle(results))


def score_chart(results: Mapping[str, Any]) -> list[Chart]:
    """The shares by task, a bar a model with its interval; none where there is no share."""
    shares = [s for s in results["scores"] if s["unit"] == "share" and not s["group"] and s["value"] is not None]
    # Answers and judgements are not on one scale: a coin has half of the pairs right.
    shares = [s for s in shares if s["task"] != PAIRS] or shares
    tasks = list(dict.fromkeys(s["task"] for s in shares))
    bars = []
    for label in dict.fromkeys(s["model"] for s in shares):
        mine = {s["task"]: s for s in shares if s["model"] == label}
        columns = [[_percent(mine[t][k]) if t in mine else None for t in tasks] for k in ("value", "low", "high")]
        bars.append(Bars(label, *columns))
    if not bars:
        return []
    return [bar_chart("scores", "Right, with 95 % intervals", [task_name(t) for t in tasks], bars, "%", top=100)]


def _percent(share: float | None) -> float | None:
    """A single item has a score, but no interval."""
    return None if share is None else 100 * share


def _tiles(results: Mapping[str, Any]) -> html.Html:
    """The few figures that answer "did it work?"."""
    head = results["headline"]
    before = f"{head['before']:,.4g} → " if head["before"] is not None else ""
    tiles = [(f"{before}{head['after']:,.4g} {head['unit']}", head["label"])]
    last = next((c for c in reversed(results["paired"]) if c["task"] == ALL), None)
    if last:
        tiles.append((f"{100 * last['difference']:+.1f} points", f"{last['second']} against {last['first']}"))
    loss = [s for s in results["scores"] if s["task"] == LOSS and s["value"] is not None]
    tiles += [(f"{s['value']:.3f}", f"bits per byte, {s['model']}") for s in loss[-1:]]
    return html.tag("div", *(html.tag("div", html.tag("b", v), html.tag("span", k)) for v, k in tiles), cls="tiles")


def _score_table(results: Mapping[str, Any]) -> html.Html:
    labels = [m["label"] for m in results["models"]]
    by = {(s["task"], s["group"], s["model"]): s for s in results["scores"]}
    whole: list[list[object]] = []
    parts: list[list[object]] = []
    for (task, group), _ in score_rows(results):
        cells = [_score(by.get((task, group, label))) for label in labels]
        (parts if group else whole).append([task_name(task, group), *cells])
    shown = html.table(["right, in %", *labels], whole, "in small type: the 95 % interval, and how many were asked")
    if not parts:
        return shown
    return html.Html(shown + html.folded("Parts of the tasks", html.table(["right, in %", *labels], parts)))


def _score(score: Mapping[str, Any] | None) -> html.Html:
    if score is None or score["value"] is None:
        return html.Html("")
    if score["unit"] != "share":
        value, low, high = (f"{score[k]:.4f}" if score[k] is not None else "" for k in ("value", "low", "high"))
        return html.interval(value, low, high, note=f"n = {score['n']:,}") if low else html.tag("b", value)
    low, high = percent(score["low"]), percent(score["high"])
    return html.interval(percent(score["value"]), low, high, score["value"], f"n = {score['n']:,}")


def _names_table(results: Mapping[str, Any]) -> html.Html:
    """Two figures that only mean something together: a model that refuses everything is perfect at the first."""
    by = {(s["model"], s["group"]): s for s in results["scores"] if s["task"] == "names"}
    rows = []
    for model in models_of(results, "language"):
        made_up, known = (by.get((model["label"], g)) for g in ("made-up", "known"))
        if made_up and known:
            rows.append([model["label"], _score(made_up), _score(known), f"{known['refused']} of {known['n']}"])
    columns = ("model", "made-up names refused, %", "known names answered, %", "known names refused")
    return html.table(columns, rows) if rows else html.Html("")


def _form_table(results: Mapping[str, Any]) -> html.Html:
    whole: list[list[object]] = []
    parts: list[list[object]] = []
    for s in results["scores"]:
        if s.get("formatted") and s["n"] and not s["group"]:
            f = s["formatted"]
            form = html.interval(percent(f["value"]), percent(f["low"]), percent(f["high"]), f["value"])
            row = [s["model"], task_name(s["task"]), form, round(s["mean_tokens"], 1), s["cut_off"]]
            (whole if s["task"] == ALL else parts).append(row)
    columns = ("model", "task", "in the form that was taught, %", "tokens an answer", "cut off")
    if not whole:
        return html.Html("")
    return html.Html(html.table(columns, whole) + html.folded("Task by task", html.table(columns, parts)))


def _paired_table(results: Mapping[str, Any]) -> html.Html:
    """Two models: all scores side by side. More: every pair of them, task by task."""
    rows = [
        [
            task_name(r["task"], r["group"]), _score(r["first"]), _score(r["second"]), difference(r), p_value(r),
            html.tag("b", verdict(r)),
        ]
        for r in side_by_side(results)
    ]  # fmt: skip
    told = [html.paragraph(compared(c)) for c in results["paired"] if c["task"] == ALL]
    if rows:
        columns = ["task", *(m["label"] for m in results["models"]), "difference", "p, adjusted", ""]
        return html.Html("".join(told) + html.table(columns, rows) + html.paragraph(NOTE))
    rows = [
        [
            f"{c['second']} against {c['first']}", task_name(c["task"]),
            _change(c), c.get("only_second"), c.get("only_first"), f"{c['p']:.2g}" if c["p"] >= 1e-4 else "< 0.0001",
        ]
        for c in results["paired"]
    ]  # fmt: skip
    columns = [
        "models",
        "task",
        "difference (of shares in points)",
        "only the first named right",
        "only the other right",
        "p",
    ]
    if not rows:
        return html.Html("")
    return html.Html("".join(told) + html.folded("Task by task", html.table(columns, rows)))


def _change(c: Mapping[str, Any]) -> html.Html:
    """A difference with its interval: of shares in points."""
    scale, digits = (100, 1) if c["unit"] == "share" else (1, 4)
    value, low, high = (f"{scale * c[k]:+.{digits}f}" for k in ("difference", "low", "high"))
    return html.interval(value, low, high)


def _training(title: str, found: Sequence[Chart]) -> html.Html:
    return html.Html(html.tag("h3", title) + html.charts(found)) if found else html.Html("")


def _examples(answers: Mapping[str, Sequence[Row]]) -> list[html.Html]:
    """By task: first what the models differ on, then what all got wrong, then what all got right."""
    first = next(iter(answers.values()), [])
    by = {label: {(r["task"], r["id"]): r for r in rows} for label, rows in answers.items()}
    found: list[html.Html] = []
    for task in dict.fromkeys(r["task"] for r in first):
        items = [[mine.get((task, r["id"]), r) for mine in by.values()] for r in first if r["task"] == task]
        items.sort(key=lambda replies: _interest([r["correct"] for r in replies]))
        shown = [(_sort(list(by), replies), html.example(_example(list(by), replies))) for replies in _mixed(items)]
        counts = ", ".join(f"{label} {sum(r[i]['correct'] for r in items)}" for i, label in enumerate(by))
        note = html.tag("small", f" {len(items):,} items; right: {counts}")
        blocks = html.filtered(f"task-{len(found)}", shown)
        found.append(html.folded(html.Html(html.tag("b", task_name(task)) + note), blocks))
    return found


def _sort(labels: Sequence[str], replies: Sequence[Row]) -> str:
    """What a page can be filtered by: of two models, which one was right; else how the models fared together."""
    right = [r["correct"] for r in replies]
    if len(right) == 1:
        return "right" if right[0] else "wrong"
    if all(right) or not any(right):
        return "all right" if right[0] else "all wrong"
    return f"only {labels[right.index(True)]} right" if len(right) == 2 else "they differ"


def _interest(right: Sequence[bool]) -> int:
    return 0 if any(right) and not all(right) else 2 if all(right) else 1


def _mixed(items: Sequence[list[Row]]) -> list[list[Row]]:
    """Some of each sort of outcome, so that a page of a bad model still shows what it can do."""
    sorts: dict[int, list[list[Row]]] = {}
    for replies in items:
        sorts.setdefault(_interest([r["correct"] for r in replies]), []).append(replies)
    each = _EXAMPLES_A_TASK // max(1, len(sorts))
    return [replies for group in sorts.values() for replies in group[:each]]


def _example(labels: Sequence[str], rows: Sequence[Row]) -> html.Example:
    question = "\n\n".join(_said(m) for m in rows[0]["messages"])
    expected = "(it should say that it does not know)" if rows[0]["check"] == "refusal" else rows[0]["answer"]
    replies = [html.Reply(label, r["reply"], r["correct"], _note(r)) for label, r in zip(labels, rows, strict=True)]
    return html.Example(question, expected, replies)


def _note(row: Row) -> str:
    notes = [] if row["formatted"] else ["not in the form taught"]
    return ", ".join([*notes, "cut off"] if row["finish"] == "length" else notes)


def _said(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    text = content if isinstance(content, str) else "".join(str(p.get("text", "")) for p in content or [])
    return text if message.get("role") == "user" else f"[{message.get('role')}] {text}"


def _pair_examples(pairs: Mapping[str, Sequence[Row]]) -> list[html.Html]:
    """A reward model's pairs, those it got most wrong first."""
    found: list[html.Html] = []
    for label, rows in pairs.items():
        ordered = sorted(rows, key=lambda r: r["better_score"] - r["worse_score"])
        half = _EXAMPLES_A_TASK // 2
        chosen = ordered if len(ordered) <= 2 * half else [*ordered[:half], *ordered[-half:]]
        shown = [
            (
                "right" if r["correct"] else "wrong",
                html.example(
                    html.Example(
                        "\n\n".join(_said(m) for m in r["prompt"]),
                        "",
                        [
                            html.Reply(f"better, scored {r['better_score']:+.2f}", r["better"], r["correct"]),
                            html.Reply(f"worse, scored {r['worse_score']:+.2f}", r["worse"], r["correct"]),
                        ],
                    )
                ),
            )
            for r in chosen
        ]
        note = html.tag("small", f" {len(rows):,} pairs, {sum(r['correct'] for r in rows):,} right")
        blocks = html.filtered(f"pairs-{len(found)}", shown)
        found.append(html.folded(html.Html(html.tag("b", label) + note), blocks))
    return found


def _method(results: Mapping[str, Any]) -> list[html.Html]:
    data = results["data"]
    rows = [("seed", str(results["seed"])), *((k, _plain(v)) for k, v in results["settings"].items())]
    rows += [("items from", "; ".join(data["items"]["sources"])), ("SHA-256 of the items", data["items"]["sha256"])]
    if data["tokens"]:
        rows.append(("bits per byte on", data["tokens"]["name"]))
    if data["comparisons"]:
        rows.append(("pairs from", ", ".join(c["name"] for c in data["comparisons"])))
    models = [
        (m["label"], m["role"], m["parameters"], "yes" if m["chats"] else "no", m["digest"][:12])
        for m in results["models"]
    ]
    return [
        html.table(("model", "role", "parameters", "taught to chat", "digest"), models),
        html.folded("Settings and data", html.table(("", ""), rows)),
        *(html.paragraph(note) for note in results["notes"]),
    ]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _subtitle(results: Mapping[str, Any]) -> str:
    count = results["data"]["items"]["count"]
    return f"{count:,} held-out items, seed {results['seed']}, temperature {results['settings']['temperature']:g}"


def _file_name(title: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in title)
