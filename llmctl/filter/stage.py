"""`llmctl filter`: pages or any documents become a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.filter import decontamination, language, own, quality
from llmctl.filter.again import has_scores, inherited, same_measures
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts, funnel_rows
from llmctl.filter.decide import columns_of
from llmctl.filter.finish import late_steps
from llmctl.filter.page import write_page
from llmctl.filter.passes import Passes
from llmctl.filter.sources import input_files
from llmctl.filter.steps import step_names, steps_of
from llmctl.parallel import cores
from llmctl.workspace import Artifact, Build, Workspace

# What a core does with input as it lies on disk: 0.3 MB/s (gzipped text) to 0.6 (gzipped HTML), measured on real pages.
_BYTES_A_SECOND = 4.0e5


def run(config: FilterConfig, workspace: Workspace, console: Console) -> Artifact:
    """Make the corpus."""
    source = workspace.resolve(config.pages, ("pages", "corpus"), files=True)
    again = has_scores(source)
    now, before = inherited(config, source) if again else (config, config)
    if now.own.function:
        own.load(now.own.function)  # a mistake in it is told before hours of work
    tokenizer = str(workspace.resolve(now.tokenizer, ("tokenizer",), files=True).path) if now.tokenizer else ""
    with workspace.build(config) as build:
        ready, trained = _readied(now, before, workspace, build)
        passes = Passes(now, ready, build, console)
        inventory = passes.take_scores(source, before) if again else passes.take_inventory(input_files(source))
        screened = passes.screen(inventory)
        finished = passes.finish(screened, tokenizer)
        counts = passes.collect(finished, screened, inventory)
        build.figures.update(_figures(counts, len(inventory.damage), bool(tokenizer)))
        build.figures.update({"quality": trained} if trained else {})
        build.figures.update({"duplicates": passes.duplicates} if passes.duplicates else {})
        write_page(build.path, counts, columns_of(steps_of(now)), *counts.last())
        _show(counts, console)
    return build.done()


def _readied(
    config: FilterConfig, before: FilterConfig, workspace: Workspace, build: Build
) -> tuple[FilterConfig, dict[str, Any]]:
    """The settings with models and indices that every process can load, made where they are to be made; and the figures
    of the classifier's training.
    """
    changed: dict[str, Any] = {}
    trained: dict[str, Any] = {}
    if config is not before and same_measures(config, before):  # the values are there already
        return config, trained
    if config.language.enabled:
        language.model_path(config.language)  # fetched once, before the processes ask for it
    if config.quality.wanted:
        changed["quality"], trained = quality.prepare(config.quality, workspace, build.path, config.seed)
    if config.decontamination.wanted:
        changed["decontamination"] = decontamination.prepare(config.decontamination, workspace, build.scratch)
    return config.model_copy(update=changed), trained


def plan(config: FilterConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What would be read, which steps would run, and for how long about."""
    steps = ("steps", ", ".join([*step_names(config), *late_steps(config)]))
    try:
        source = workspace.resolve(config.pages, ("pages", "corpus"), files=True)
    except UserError as e:
        return [("input", f"{config.pages} ({e.what})"), steps]
    if has_scores(source):
        same = same_measures(*inherited(config, source))
        return [
            ("input", f"{config.pages}: its scores"),
            steps,
            ("work", "decided again from the values" if same else "its texts are measured again"),
        ]
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
    rows = [(step, n, human_bytes(size), by) for step, n, size, by in funnel_rows(counts.as_dict)]
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
