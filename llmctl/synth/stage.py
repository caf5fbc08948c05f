"""`llmctl synth`: conversations, or comparisons, made by code or written by a model, with a held-out part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from llmctl.console import Console
from llmctl.synth.config import PREFERENCES, SynthConfig
from llmctl.synth.made import Made, estimate
from llmctl.synth.preferences import comparisons
from llmctl.synth.who import system_message, told
from llmctl.tools.search import SearchIndex
from llmctl.tools.toolbox import Toolbox
from llmctl.verify import Item, problems
from llmctl.verify.lookup import library
from llmctl.workspace import Artifact, Workspace

_MAKERS = {"knowledge": "llmctl.synth.knowledge", "chat": "llmctl.synth.chats", "distill": "llmctl.synth.distill"}


def run(config: SynthConfig, workspace: Workspace, console: Console) -> Artifact:
    """Make the artifact: `train.jsonl`, `heldout.jsonl`, and `library.jsonl` where something has to be looked up, or
    `rejected.jsonl` where a model wrote.
    """
    with workspace.build(config) as build:
        if config.maker:
            maker = import_module(_MAKERS[config.maker])
            for what, how_much in estimate(maker.calls(config, workspace), config.endpoint):
                console.info(f"{what}: {how_much}")
            made = maker.make(config, workspace, build.scratch, console)
            build.figures = _written(made, config, build.path)
        elif PREFERENCES in config.mix:
            build.figures = _comparisons(config, build.path)
        else:
            build.figures = _conversations(config, build.path, console)
    return build.done()


def plan(config: SynthConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What would be made, with an example of each kind."""
    rows = [("makes", config.made_kind)]
    if config.maker:
        calls = import_module(_MAKERS[config.maker]).calls(config, workspace)
        return [*rows, (config.maker, f"{config.mix[config.maker]:,}"), *estimate(calls, config.endpoint)]
    for kind, count in config.counts().items():
        rows.append((kind, f"{count:,}, and up to {config.heldout:,} held out"))
        if kind == PREFERENCES:
            example = comparisons(config, 1, heldout=False)[0]
            rows += [("  prompt", example["prompt"][0]["content"])]
            rows += [
                (f"  rank {r}", _short(t))
                for r, t in sorted(zip(example["ranking"], example["responses"], strict=True))
            ]
        else:
            item = problems(kind, 1, config.seed, heldout=False, **_options(config, kind))[0]
            rows.append((f"  {item.question}", _short(spoken(item.messages[-1]["content"]))))
    return rows


def spoken(content: str | list[dict[str, str]]) -> str:
    """A turn as one line of text, tool calls in brackets."""
    if isinstance(content, str):
        return content
    return " ".join(p["text"] if p["type"] == "text" else f"[{p['type']}: {p['text']}]" for p in content)


def _conversations(config: SynthConfig, path: Path, console: Console) -> dict[str, Any]:
    train, heldout = _items(config, console)
    figures: dict[str, Any] = {}
    if any(item.document for item in train + heldout):
        pages = library(train + heldout, config.seed, config.lookup)
        train, heldout, missed = _found(train, pages), _found(heldout, pages), len(train) + len(heldout)
        missed -= len(train) + len(heldout)
        if missed:
            console.warn(f"{missed:,} look-ups left out: the search finds another document for their query")
        _write(path / "library.jsonl", pages)
        figures = {"library": len(pages), "lookups_missed": missed}
    if config.from_system and any(item.kind == "identity" for item in train):
        train, heldout = (told(side, config.from_system, config.seed) for side in (train, heldout))
        figures["system"] = system_message(config.identity)
    rng = Random(f"synth/{config.seed}")
    rng.shuffle(train)
    rng.shuffle(heldout)
    _write(path / "train.jsonl", (item.row() for item in train))
    _write(path / "heldout.jsonl", (item.row() for item in heldout))
    kinds = Counter(item.kind for item in train)
    figures |= _headline("conversations", len(train), len(heldout))
    return {**figures, "kinds": dict(kinds), "heldout_kinds": dict(Counter(item.kind for item in heldout))}


def _written(made: Made, config: SynthConfig, path: Path) -> dict[str, Any]:
    """The files of what a model wrote, and where it comes from."""
    _write(path / "train.jsonl", made.train)
    _write(path / "heldout.jsonl", made.heldout)
    _write(path / "rejected.jsonl", made.rejected)
    figures = _headline("conversations", len(made.train), len(made.heldout))
    return {**figures, "rejected": len(made.rejected), "reasons": made.reasons(), **made.figures}


def _comparisons(config: SynthConfig, path: Path) -> dict[str, Any]:
    train = comparisons(config, config.mix[PREFERENCES], heldout=False)
    heldout = comparisons(config, config.heldout, heldout=True)
    _write(path / "train.jsonl", train)
    _write(path / "heldout.jsonl", heldout)
    pairs = sum(len(row["ranking"]) * (len(row["ranking"]) - 1) // 2 for row in train)
    return {**_headline("comparisons", len(train), len(heldout)), "pairs": pairs}


def _items(config: SynthConfig, console: Console) -> tuple[list[Item], list[Item]]:
    train: list[Item] = []
    heldout: list[Item] = []
    with console.progress("synth", sum(config.counts().values()), "problems") as bar:
        for kind, count in config.counts().items():
            options = _options(config, kind)
            train += problems(kind, count, config.seed, heldout=False, **options)
            apart = problems(kind, config.heldout, config.seed, heldout=True, **options)
            if len(apart) < config.heldout:
                console.info(f"{kind}: only {len(apart):,} different held-out problems")
            heldout += apart
            bar.advance(count, kind)
    return train, heldout


def _found(items: list[Item], pages: list[dict[str, str]]) -> list[Item]:
    """The items whose search, done by the real tool, gives back what the conversation says it does."""
    tools = Toolbox(search=SearchIndex.build((page["title"], page["text"]) for page in pages))
    return [item for item in items if item.document is None or _same(item, tools)]


def _same(item: Item, tools: Toolbox) -> bool:
    search, output, *_ = item.messages[-1]["content"]
    return tools("search", search["text"]) == output["text"]


def _options(config: SynthConfig, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = getattr(config, kind).model_dump()
    return found


def _headline(what: str, train: int, heldout: int) -> dict[str, Any]:
    return {
        "headline": {"label": what, "before": None, "after": train, "unit": ""},
        "in": "",
        "out": f"{train:,} {what}, {heldout:,} held out",
        "train": train,
        "heldout": heldout,
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _short(text: str, most: int = 120) -> str:
    line = " / ".join(text.split("\n"))
    return line if len(line) <= most else line[: most - 3] + "..."
