"""Looking at a workspace: the list of what is there, and one artifact with its lineage as a tree."""

from __future__ import annotations

import json
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError, nearest
from llmctl.eval.leaderboard import cell, evals_of, score_name
from llmctl.filter.counts import funnel_rows
from llmctl.pipeline.execute import headline, human_bytes, human_seconds
from llmctl.workspace import KINDS, Artifact, Workspace


def listing(workspace: Workspace, kind: str | None = None) -> list[dict[str, Any]]:
    """A dict an artifact: kind, name, stage, created, bytes, headline, path. Damaged ones are listed as such."""
    if kind is not None and kind not in KINDS:
        raise UserError(f"no kind {kind!r}{nearest(kind, KINDS)}", fix="kinds: " + ", ".join(KINDS))
    rows = []
    for a in workspace.artifacts(kind):
        row: dict[str, Any] = {"kind": a.kind, "name": a.name, "path": str(a.path)}
        try:
            m = a.manifest
            row |= {"stage": m["stage"], "created": m["finished"], "bytes": a.bytes, "headline": headline(a.figures)}
        except (UserError, KeyError) as e:
            row |= {"stage": None, "created": None, "bytes": None, "headline": f"damaged: {e}"}
        rows.append(row)
    return rows


def show_listing(rows: list[dict[str, Any]], workspace: Workspace, console: Console) -> None:
    """The list for a person: on stdout where it is piped, as a table on a terminal."""
    if not rows:
        console.info(f"{workspace.root} is empty; begin with: llmctl crawl demo")
    for row in rows:
        size = "" if row["bytes"] is None else human_bytes(row["bytes"])
        parts = (row["kind"], row["name"], row["stage"] or "", row["created"] or "", size, row["headline"])
        console.print("  ".join(f"{p:<{w}}" for p, w in zip(parts, (13, 16, 8, 20, 9, 0), strict=True)).rstrip())
    for name in workspace.unfinished():
        console.info(f"unfinished: {name} (the same command again goes on)")


def described(artifact: Artifact, workspace: Workspace) -> dict[str, Any]:
    """The manifest with the lineage below it."""
    found = {**artifact.manifest, "bytes": artifact.bytes, "lineage": lineage(artifact, workspace)}
    return found | ({"evals": evals_of(workspace, artifact.digest)} if artifact.kind == "model" else {})


def lineage(artifact: Artifact, workspace: Workspace) -> list[dict[str, Any]]:
    """The inputs, each with its own below it. `state` says where one is gone or has been made again since."""
    found = []
    for reference in artifact.manifest.get("inputs", []):
        node: dict[str, Any] = {**reference, "state": "outside", "inputs": []}
        if reference["kind"] in KINDS:
            node["state"] = "gone"
            path = workspace.root / reference["kind"] / reference["name"]
            if (path / "manifest.json").is_file():
                parent = Artifact(reference["kind"], reference["name"], path)
                same = parent.digest == reference["digest"]
                node["state"] = "there" if same else "made again since"
                node["stage"] = parent.manifest.get("stage")
                node["inputs"] = lineage(parent, workspace) if same else []
        found.append(node)
    return found


def show_artifact(artifact: Artifact, workspace: Workspace, console: Console) -> None:
    """One artifact on stdout: what it is, its figures, its settings, its files, its lineage."""
    m = artifact.manifest
    console.print(f"{artifact.kind}/{artifact.name}  made by {m['stage']}, {m['finished']}, "
                  f"in {human_seconds(float(m.get('seconds') or 0))}")  # fmt: skip
    console.print(f"{artifact.path}  {human_bytes(artifact.bytes)} in {len(m['files'])} files")
    console.print(f"digest {artifact.digest[:16]}  seed {m['seed']}  " + _pairs(m["versions"]))
    _section("figures", _flat({k: v for k, v in artifact.figures.items() if k not in ("headline", "more")}), console)
    if head := headline(artifact.figures, more=True):
        console.print(f"  {head}")
    if artifact.kind == "corpus":
        _funnel(artifact, console)
    if artifact.kind == "model":
        scores = evals_of(workspace, artifact.digest)
        _section("evals", [(score_name(s), f"{cell(s)}  {s['report']}, {s['date']}") for s in scores], console)
    _section("settings", _flat(m["settings"]), console)
    _section("files", [(f["path"], human_bytes(f["bytes"])) for f in m["files"]], console)
    console.print("lineage")
    console.print(f"  {artifact.kind}/{artifact.name}  ({m['stage']})")
    _tree(lineage(artifact, workspace), "  ", console)
    for line in artifact.damage():
        console.warn(line)


def _funnel(corpus: Artifact, console: Console) -> None:
    """Documents and bytes after each step, and what dropped the others."""
    try:
        rows = funnel_rows(json.loads(corpus.file("counts.json").read_text(encoding="utf-8")))
    except (UserError, OSError, ValueError, KeyError):
        return
    console.print("funnel")
    for step, documents, size, by in rows:
        console.print(f"  {step:<18}  {documents:>11,} documents  {human_bytes(size):>9}  {by}".rstrip())


def _tree(nodes: list[dict[str, Any]], indent: str, console: Console) -> None:
    for i, node in enumerate(nodes):
        last = i == len(nodes) - 1
        name = f"{node['kind']}/{node['name']}" if node["kind"] in KINDS else node["name"]
        stage = f"  ({node['stage']})" if node.get("stage") else ""
        state = "" if node["state"] in ("there", "outside") else f"  [{node['state']}]"
        console.print(f"{indent}{'└─ ' if last else '├─ '}{name}{stage}{state}")
        _tree(node["inputs"], indent + ("   " if last else "│  "), console)


def _section(title: str, rows: list[tuple[str, Any]], console: Console) -> None:
    if rows:
        console.print(title)
        width = min(max(len(k) for k, _ in rows), 40)
        for k, v in rows[:60]:
            console.print(f"  {k:<{width}}  {v}")
        if len(rows) > 60:
            console.print(f"  ... and {len(rows) - 60} more (--json has all)")


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for k, v in value.items():
        if isinstance(v, dict):
            rows += _flat(v, f"{prefix}{k}.")
        elif v not in (None, "", []):
            text = str(v)
            rows.append((f"{prefix}{k}", text if len(text) < 200 else text[:197] + "..."))
    return rows


def _pairs(found: dict[str, Any]) -> str:
    return " ".join(f"{k} {v}" for k, v in found.items())
