"""The workspace: where artifacts live, how they are found, and how a new one is begun."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from llmctl.errors import UserError, nearest
from llmctl.workspace.artifact import KINDS, Artifact, Foreign
from llmctl.workspace.build import OLD, Build, Follower, follows, promote
from llmctl.workspace.files import sha256_json, sha256_tree
from llmctl.workspace.lock import Lock

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class Request(Protocol):
    """What the workspace asks of a stage's settings; `recipe.settings.StageSettings` answers it."""

    out: str
    seed: int

    @property
    def stage_name(self) -> str:
        """The command that makes it."""
        ...

    @property
    def made_kind(self) -> str:
        """The kind of artifact it makes."""
        ...

    def recorded(self, fingerprint: bool = False) -> dict[str, Any]:
        """The resolved settings; with `fingerprint`, only those that change the result."""
        ...

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """(value, kinds, files allowed) of every input."""
        ...


class Workspace:
    """A folder `root/<kind>/<name>/`, made on first use.

    `root/.work` holds what is being made, `root/.locks` who is making it.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root or os.environ.get("LLMCTL_WORKSPACE") or "workspace").expanduser()
        if self.root.exists() and not self.root.is_dir():
            raise UserError("the workspace is a file, not a folder", str(self.root), "choose another with -w")

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """Every finished artifact, ordered by kind in the order of the lifecycle, then by name."""
        found = []
        for k in (kind,) if kind else KINDS:
            folder = self.root / k
            if folder.is_dir():
                found += [Artifact(k, p.name, p) for p in sorted(folder.iterdir()) if (p / "manifest.json").is_file()]
        return found

    def find(self, name: str, kinds: Sequence[str] | None = None) -> Artifact:
        """The artifact called `name`, or `kind/name`, among `kinds`. UserError if there is none."""
        kind, _, bare = name.rpartition("/")
        if kind and kind not in KINDS:
            if not (near := nearest(kind, KINDS)):
                check_name(name)
            raise UserError(f"no kind {kind!r}{near}", fix="kinds: " + ", ".join(KINDS))
        wanted = [kind] if kind else list(kinds or KINDS)
        check_name(bare)
        found = [a for k in wanted for a in [self._at(k, bare)] if a]
        if len(found) > 1 and not kinds:
            choices = ", ".join(f"{a.kind}/{a.name}" for a in found)
            raise UserError(f"{name!r} names several artifacts", fix=f"say which: {choices}")
        if not found:
            there = [a.name for k in wanted for a in self.artifacts(k)]
            what = " or ".join(wanted) if kinds or kind else "artifact"
            have = f"there: {', '.join(sorted(set(there)))}" if there else f"there is no {what} yet"
            raise UserError(f"no {what} named {bare!r} in {self.root}{nearest(bare, there)}", fix=have)
        return found[0]

    def resolve(self, value: str, kinds: Sequence[str], files: bool = False) -> Artifact | Foreign:
        """An input as typed: an artifact's name or, where `files` is true, a path on disk or an `hf:` name.

        A path is recognised by a separator or by existing where no artifact has that name.
        """
        if files and value.startswith("hf:"):
            return Foreign(Path(value), sha256_json(value), kind="hub", name=value)
        if files and not self._is_artifact(value, kinds):
            path = Path(value).expanduser()
            if path.exists():
                return Foreign(path, sha256_tree(path))
            if os.sep in value and value.partition("/")[0] not in KINDS:
                raise UserError("no such file or folder", value, "check the path")
        return self.find(value, kinds)

    def inputs_of(self, request: Request) -> list[Artifact | Foreign]:
        """The resolved inputs of a stage's settings, in the order of the schema."""
        return [self.resolve(value, kinds, files) for value, kinds, files in request.inputs()]

    def fingerprint(self, request: Request, kind: str | None = None) -> str:
        """What a result depends on: the stage, its settings and the digests of its inputs."""
        return sha256_json(
            {
                "stage": request.stage_name,
                "kind": kind or request.made_kind,
                "settings": request.recorded(fingerprint=True),
                "inputs": [[i.kind, i.digest] for i in self.inputs_of(request)],
            }
        )

    def current(self, request: Request, kind: str | None = None) -> Artifact | None:
        """The finished artifact that `request` would make again unchanged, or None. Its files are not hashed."""
        found = self._at(kind or request.made_kind, request.out)
        if found is None or found.manifest.get("fingerprint") != self.fingerprint(request, kind) or found.damage():
            return None
        return found

    def build(self, request: Request, kind: str | None = None) -> Build:
        """Begin, or take up again, the artifact that `request` describes. Use it as a context manager."""
        kind = kind or request.made_kind
        check_name(request.out)
        assert kind in KINDS, kind
        return (Follower if follows() else Build)(
            kind=kind,
            name=request.out,
            stage=request.stage_name,
            settings=request.recorded(),
            inputs=self.inputs_of(request),
            fingerprint=self.fingerprint(request, kind),
            work=self.root / ".work" / kind / request.out,
            final=self.root / kind / request.out,
            lock=self._lock(kind, request.out),
            seed=request.seed,
        )

    def recover(self) -> None:
        """Finish what a kill left between the seal and the rename or after it, unless its maker is alive and at it."""
        for work in sorted((self.root / ".work").glob("*/*")):
            # Path.glob's `*` matches hidden names too; a name cannot begin with a dot, so this is a replaced version.
            replaced = work.name.startswith(OLD)
            sealed = work / "manifest.json"
            if not replaced and not sealed.exists():
                continue
            name = work.name.removeprefix(OLD)
            lock = self._lock(work.parent.name, name)
            try:
                lock.acquire()
            except UserError:
                continue
            try:
                final = self.root / work.parent.name / name
                if replaced and final.exists():
                    shutil.rmtree(work)
                elif sealed.exists() and not replaced:
                    promote(work, final)
            finally:
                lock.release()

    def unfinished(self) -> list[str]:
        """`kind/name` of everything begun and not finished."""
        return sorted(f"{p.parent.parent.name}/{p.parent.name}" for p in self.root.glob(".work/*/*/building.json"))

    def _lock(self, kind: str, name: str) -> Lock:
        return Lock(self.root / ".locks" / f"{kind}--{name}", f"{kind} {name!r}")

    def _at(self, kind: str, name: str) -> Artifact | None:
        path = self.root / kind / name
        return Artifact(kind, name, path) if (path / "manifest.json").is_file() else None

    def _is_artifact(self, value: str, kinds: Sequence[str]) -> bool:
        kind, _, bare = value.rpartition("/")
        if kind and kind not in KINDS:
            return False
        return bool(_NAME.match(bare)) and any(self._at(k, bare) for k in ([kind] if kind else kinds))


def check_name(name: str) -> None:
    """UserError unless `name` is safe as a folder: letters, digits, dot, dash, underscore; no separators, no '..'."""
    if not _NAME.match(name) or ".." in name:
        raise UserError(
            f"{name!r} cannot be a name", fix="use letters, digits, '.', '_' and '-'; begin with a letter or digit"
        )
