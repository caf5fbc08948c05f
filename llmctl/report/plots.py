"""Line and bar charts: one drawing each, as PNG for a file and as SVG for a page.

The SVG takes its ink from the page (`currentColor`), so that it is readable in dark mode; its text stays text. Equal
data give equal bytes, so a report's digest says whether its numbers changed. Matplotlib is imported when something is
drawn: it takes about a second, which `--help` should not pay.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Okabe and Ito's palette (2008): told apart by colour-blind readers, and visible on white and on near-black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
_INK = "#2b2b2c"  # a colour that nothing else uses; the SVG's is replaced by the page's
_SIZE = (5.0, 3.0)  # inches; small, so that the text is still readable when a phone scales it to its width
# What a screen shows anyway. A page with ten runs of 10,000 steps would otherwise carry megabytes of path data.
_MOST_POINTS = 300


@dataclass(frozen=True)
class Series:
    """One line: a label and its points, x ascending."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """One group's bars, with the ends of their intervals. None where there is no value."""

    label: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Chart:
    """A drawn chart in both forms."""

    name: str
    title: str
    png: bytes
    svg: str


@dataclass(frozen=True)
class Curve:
    """A chart of training metrics: its title, the keys of `metrics.jsonl` that it draws, the name of its y axis; and
    the key of its x axis with its name, where that is not the step.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    unit: str
    x: str = "step"
    x_label: str = "step"


# The keys that the stages log. A chart shows those that a run has, and is left out where it has none.
CURVES = (
    Curve("loss", "Loss", ("loss", "val_loss"), "loss"),
    Curve("bits_per_byte", "Bits per byte, held out", ("bits_per_byte", "val_bits_per_byte", "val_bpb"), "bits a byte"),
    Curve("reward", "Reward", ("reward",), "mean reward"),
    Curve("reward_parts", "Reward by component", ("reward_learned", "reward_own", "reward_overlong"), "mean"),
    Curve("accuracy", "Accuracy", ("accuracy", "heldout_accuracy", "pair_accuracy"), "share right"),
    Curve("format", "Answers in the form taught", ("formatted", "heldout_formatted"), "share"),
    Curve("length", "Length of the answers", ("length", "heldout_length"), "tokens"),
    Curve("kl", "Distance from the start (KL)", ("kl", "kl_k1"), "nats a token"),
    Curve("entropy", "Entropy", ("entropy",), "nats"),
    Curve(
        "spread",
        "Groups that teach nothing",
        ("groups_without_spread", "groups_all_right", "groups_all_wrong"),
        "share",
    ),
    Curve("clip", "Clipped tokens", ("clipped_low", "clipped_high"), "share"),
    Curve("cut", "Replies that are cut, or repeat themselves", ("truncated", "repetition"), "share"),
    Curve("reflection", 'Reflection: "wait", "let me check"', ("reflection",), "share of replies"),
    Curve("sampler", "Trainer against sampler", ("sampler_gap", "sampler_k1"), "nats a token"),
    Curve(
        "guard",
        "The practised reward and the gold one",
        ("guard_proxy", "guard_gold"),
        "mean reward",
        "guard_sqrt_kl",
        "square root of the KL to the start (nats)",
    ),
)


def series_of(rows: Sequence[dict[str, Any]], key: str, label: str, x: str = "step") -> Series | None:
    """`key` over `x`, the steps, of `metrics.jsonl` rows; None where fewer than two have finite numbers there."""
    points = []
    for i, row in enumerate(rows):
        value, step = row.get(key), row.get(x, i if x == "step" else None)
        if _number(value) and _number(step):
            points.append((float(step), float(value)))  # type: ignore[arg-type]
    if len(points) < 2:
        return None
    points.sort(key=lambda p: p[0])
    return Series(label, [p[0] for p in points], [p[1] for p in points])


def curves(rows: Sequence[dict[str, Any]], prefix: str = "", choose: Sequence[Curve] = CURVES) -> list[Chart]:
    """One run's charts: each of the curves of which its metrics rows hold a key. `prefix` goes before their names."""
    drawn = []
    for curve in choose:
        found = [line for key in curve.keys if (line := series_of(rows, key, key.replace("_", " "), curve.x))]
        if found:
            drawn.append(line_chart(f"{prefix}{curve.name}", curve.title, found, curve.x_label, curve.unit))
    return drawn


def line_chart(
    name: str,
    title: str,
    lines: Sequence[Series],
    x_label: str,
    y_label: str,
    points: Sequence[Series] = (),
    log_x: bool = False,
) -> Chart:
    """Lines on shared axes. Long ones are drawn as the means of equal runs of points.

    `points` are drawn as dots, each set in the colour of the line at its place.
    """
    with _axes(name) as (figure, axes):
        for i, line in enumerate(lines):
            x, y = thinned(line.x), thinned(line.y)
            # Dashes after the palette is used up, so that a ninth line is not the first again.
            style = ("-", "--", ":")[i // len(COLOURS) % 3]
            axes.plot(x, y, style, color=COLOURS[i % len(COLOURS)], linewidth=1.6, label=_shown(line.label))
        for i, dots in enumerate(points):
            label = "_" if i < len(lines) else _shown(dots.label)
            axes.plot(dots.x, dots.y, "o", color=COLOURS[i % len(COLOURS)], markersize=4.5, label=label)
        if log_x:
            axes.set_xscale("log")
            # Matplotlib's own labels are formulas, which are not parsed here.
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e+0", "e").replace("e+", "e"))
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(True, alpha=0.25)
        if len(lines) + len(points) > 1:
            axes.legend(frameon=False, fontsize=8)
        return _chart(name, title, figure)


def bar_chart(
    name: str, title: str, groups: Sequence[str], bars: Sequence[Bars], y_label: str, top: float | None = None
) -> Chart:
    """Bars side by side in `groups` (every `Bars` has one value a group), with whiskers where intervals are given."""
    with _axes(name) as (figure, axes):
        width = 0.8 / max(1, len(bars))
        for i, b in enumerate(bars):
            there = [g for g, v in enumerate(b.values) if _number(v)]
            at = [g - 0.4 + width * (i + 0.5) for g in there]
            whiskers = {"yerr": _whiskers(b, there), "ecolor": _INK, "error_kw": {"elinewidth": 1, "capsize": 2}}
            heights = [b.values[g] for g in there]
            axes.bar(at, heights, width * 0.92, color=COLOURS[i % len(COLOURS)], label=_shown(b.label), **whiskers)
        turned = {"rotation": 20, "ha": "right"} if len(groups) > 4 else {}
        axes.set_xticks(range(len(groups)), [_shown(g) for g in groups], **turned)
        axes.set_ylabel(y_label)
        axes.grid(True, axis="y", alpha=0.25)
        axes.set_axisbelow(True)
        axes.set_ylim(0, top)
        if len(bars) > 1:
            axes.legend(frameon=False, fontsize=8, ncols=min(3, len(bars)), loc="lower left", bbox_to_anchor=(0, 1))
        return _chart(name, title, figure)


def thinned(values: Sequence[float], most: int = _MOST_POINTS) -> list[float]:
    """`values` in at most `most` points, each the mean of an equal run: peaks are damped, but no part is left out."""
    if len(values) <= most:
        return list(values)
    edges = [i * len(values) // most for i in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _whiskers(b: Bars, there: Sequence[int]) -> list[list[float]] | None:
    """Matplotlib's distances below and above the bars of the groups `there`; none where there are no intervals."""
    if not b.low or not b.high:
        return None
    ends = [(b.values[g], b.low[g], b.high[g]) for g in there]
    below = [max(0.0, v - low) if v is not None and low is not None else 0.0 for v, low, _ in ends]
    above = [max(0.0, high - v) if v is not None and high is not None else 0.0 for v, _, high in ends]
    return [below, above]


@contextmanager
def _axes(name: str) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes. No pyplot: its global state would leak figures and choose a screen backend."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # without it the ids in the SVG are random
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,  # a model called `a$b$c` is no formula
        "axes.spines.top": False,
        "axes.spines.right": False,
    } | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=_SIZE, layout="constrained")
        yield figure, figure.add_subplot()


def _chart(name: str, title: str, figure: Any) -> Chart:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    vector, picture = io.StringIO(), io.BytesIO()
    for patch in (figure.patch, figure.axes[0].patch):
        patch.set_alpha(0)  # the page's paper shows through
    FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None, "Creator": None})
    figure.patch.set_alpha(1)
    figure.suptitle(_shown(title), fontsize=10)  # a page has captions, a file on its own has not
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    return Chart(name, title, picture.getvalue(), _inline(vector.getvalue()))


def _inline(svg: str) -> str:
    """The `<svg>` element alone, as wide as its place, in the page's ink, without its metadata (which names URLs)."""
    svg = svg[svg.index("<svg") :]
    head, body = svg.split(">", 1)
    view = head.split('viewBox="', 1)[1].split('"', 1)[0]
    if "<metadata>" in body:
        body = body[: body.index("<metadata>")] + body[body.index("</metadata>") + len("</metadata>") :]
    # The id of an inlined definition is found by `xlink:href`, which HTML knows without the namespace's declaration.
    body = body.replace(_INK, "currentColor")
    return f'<svg viewBox="{view}" role="img">{body}'


def _shown(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
