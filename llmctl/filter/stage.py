"""`llmctl filter`: pages or any documents become a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.filter import own
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts
from llmctl.filter.finish import late_steps
from llmctl.filter.passes import Passes
from llmctl.filter.sources import input_files
from llmctl.filter.steps import steps_of
from llmctl.parallel import cores
from llmctl.workspace import Artifact, Workspace

# What a core does with input as it lies on disk: 0.3 MB/s (gzipped text) to 0.6 (gzipped HTML), measured on real pages.
_BYTES_A_SECOND = 4.0e5


def run(config: FilterConfig, workspace: Workspace, console: Console) -> Artifact:
    """Make the corpus."""
    if config.own.function:
        own.load(config.own.function)  # a mistake in it is told before hours of work
    source = workspace.resolve(config.pages, ("pages", "corpus"), files=True)
    tokenizer = str(workspace.resolve(config.tokenizer, ("tokenizer",), files=True).path) if config.tokenizer else ""
    with workspace.build(config) as build:
        passes = Passes(config, build, console)
        inventory = passes.take_inventory(input_files(source))
        screened = passes.screen(inventory)
        finished = passes.finish(screened, tokenizer)
        counts = passes.collect(finished, screened, inventory)
        build.figures.update(_figures(counts, len(inventory.damage), bool(tokenizer)))
        _show(counts, console)
    return build.done()


def plan(config: FilterConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What would be read, which steps would run, and for how long about."""
    steps = ("steps", ", ".join([*(step.name for step in steps_of(config)), *late_steps(config)]))
    try:
        source = workspace.resolve(config.pages, ("pages", "corpus"), files=True)
    except UserError as e:
        return [("input", f"{config.pages} ({e.what})"), steps]
    files = [Path(path) for path, _ in input_files(source)]
    size, workers = sum(path.stat().st_size for path in files if path.exists()), config.workers or cores()
    return [
        ("input", f"{config.pages}: {len(files):,} files, {human_bytes(size)}"),
        steps,
        ("workers", f"{workers} ({config.engine})"),
        ("time", f"about {max(1, round(size / _BYTES_A_SECOND / workers / 60)):,} min"),
    ]


def _figures(counts: Counts, damaged: int, tokens: bool) -> dict[str, Any]:
    total, (kept, size) = counts.as_dict, counts.last()
    return {
        "headline": {"label": "documents kept", "before": total["documents"], "after": kept, "unit": ""},
        "more": [{"label": "dropped by", "after": _by_rule(counts.rules()), "unit": ""}],
        "in": f"{total['documents']:,} documents, {human_bytes(total['bytes'])}",
        "out": f"{kept:,} documents, {human_bytes(size)}",
        "documents_in": total["documents"],
        "documents_kept": kept,
        "bytes_in": total["bytes"],
        "bytes_out": size,
        "dropped": counts.rules(),
        "replaced": total["replaced"],
        "languages": total["languages"],
        "damaged": damaged,
        **({"tokens": total["tokens"]} if tokens else {}),
    }


def _show(counts: Counts, console: Console) -> None:
    """The funnel: what is left after each step, and the rules that dropped most."""
    rows = [("read", counts.as_dict["documents"], human_bytes(counts.as_dict["bytes"]), "")]
    for name, step in counts.as_dict["steps"].items():
        rules = sorted(step["dropped"].items(), key=lambda item: -item[1])
        by = [f"{rule.partition('.')[2]} {n:,}" for rule, n in rules[:4]] + ["..."] * (len(rules) > 4)
        rows.append((name, step["documents"], human_bytes(step["bytes"]), ", ".join(by)))
    console.table("", ("after", "documents", "bytes", "dropped by"), rows)
    if not counts.last()[0]:
        rule = next(iter(counts.rules()))
        console.warn(f"no document was kept; {rule} dropped most: look into dropped/, then change its threshold")


def human_bytes(size: float) -> str:
    """`8.1 MB`, in powers of ten as disks and networks count."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _by_rule(dropped: dict[str, int], shown: int = 5) -> str:
    """The rules that dropped most, with their counts: `char_dup_ratio 72, alpha 38, and 4 more`."""
    names = [f"{rule.rpartition('.')[2]} {n:,}" for rule, n in sorted(dropped.items(), key=lambda r: -r[1])]
    rest = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest if names else "nothing"
