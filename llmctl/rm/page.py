"""`report.html` of a reward model: how often it is right, whether its chances are true, where it is most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.model.tokenizer import Tokenizer
from llmctl.report import html
from llmctl.report.plots import Series, line_chart
from llmctl.rm.config import RmConfig
from llmctl.rm.data import Ranking
from llmctl.rm.measure import Scores, margins_of

_WORST = 20


def write_page(
    folder: Path,
    config: RmConfig,
    found: dict[str, Any],
    heldout: Sequence[Ranking],
    scores: Scores,
    tokenizer: Tokenizer,
) -> None:
    """Write `report.html` and `reliability.png`; nothing where nothing is held out."""
    if not heldout:
        return
    chart = line_chart(
        "reliability",
        f"Said and right, expected calibration error {found['calibration']['error']:.3f}",
        [
            Series(
                "held-out pairs", *([b[k] for b in found["calibration"]["bins"]] for k in ("confidence", "accuracy"))
            ),
            Series("what is said is true", [0.5, 1.0], [0.5, 1.0]),
        ],
        "sigmoid(|margin|)",
        "share ranked right",
    )
    (folder / f"{chart.name}.png").write_bytes(chart.png)
    parts = [
        html.section("Held-out pairs ranked right", _accuracy(found)),
        html.section("Whether its chances are chances", html.chart(chart), _reliability(found)),
        html.section("Where it is most wrong", *_worst(heldout, scores, tokenizer)),
    ]
    html.write_page(folder / "report.html", f"Reward model {config.out}", parts, found["out"])


def _accuracy(found: dict[str, Any]) -> html.Html:
    rows = [("all", found["heldout"] | {k: found[k] for k in ("length_correlation", "longer_is_better")})]
    rows += list(found["by_kind"].items())
    columns = ("", "pairs", "ranked right", "95 %", "choosing the longer", "score and length")
    return html.table(columns, [_row(name, row) for name, row in rows])


def _row(name: str, row: dict[str, Any]) -> tuple[object, ...]:
    r = row["length_correlation"]
    return (
        name,
        row["pairs"],
        f"{row['accuracy']:.1%}",
        f"{row['low']:.1%} to {row['high']:.1%}",
        f"{row['longer_is_better']:.1%}",
        "" if r is None else f"r = {r:+.2f}",
    )


def _reliability(found: dict[str, Any]) -> html.Html:
    rows = [
        (f"{b['confidence']:.1%}", f"{b['accuracy']:.1%}", f"{b['low']:.1%} to {b['high']:.1%}", b["pairs"])
        for b in found["calibration"]["bins"]
    ]
    return html.table(("said", "right", "95 %", "pairs"), rows)


def _worst(heldout: Sequence[Ranking], scores: Scores, tokenizer: Tokenizer) -> list[html.Html]:
    """The pairs with the largest margins on the wrong side."""
    margins = margins_of(heldout, scores)
    wrong = [
        (m, r, pair)
        for r, some in zip(heldout, margins, strict=True)
        for m, pair in zip(some, r.pairs, strict=True)
        if m <= 0
    ]
    found = []
    for m, ranking, (better, worse) in sorted(wrong, key=lambda w: w[0])[:_WORST]:
        asked = tokenizer.decode(ranking.replies[better][: ranking.prompt].tolist())
        told = [tokenizer.decode(ranking.replies[i][ranking.prompt :].tolist()) for i in (better, worse)]
        rows = [("better", told[0]), ("worse", told[1])]
        found.append(html.folded(f"{-m:.2f} the wrong way: {asked[-160:]}", html.table(("", "reply"), rows)))
    return found
