"""One named artifact on disk, and an input that lies outside the workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.workspace.files import sha256_file

KINDS = ("pages", "corpus", "tokenizer", "tokens", "conversations", "comparisons", "model", "report")


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: a folder with a `manifest.json` that says what it is and how it was made."""

    kind: str
    name: str
    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest. UserError where it is missing or damaged."""
        path = self.path / "manifest.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or "files" not in found:
                raise ValueError("it is no manifest")
            return found
        except (OSError, ValueError) as e:
            raise UserError(f"cannot read the manifest: {e}", str(path), "make the artifact again (--overwrite)") from e

    @property
    def digest(self) -> str:
        """The digest of the data: the same bytes give the same digest, whoever made them and when."""
        return str(self.manifest["digest"])

    @property
    def figures(self) -> dict[str, Any]:
        """What the stage measured (documents kept, loss, accuracy, ...)."""
        return dict(self.manifest.get("figures") or {})

    @property
    def bytes(self) -> int:
        """The size of the data, in bytes."""
        return sum(int(f["bytes"]) for f in self.manifest["files"])

    def reference(self) -> dict[str, str]:
        """How another manifest names this artifact among its inputs."""
        return {"kind": self.kind, "name": self.name, "digest": self.digest}

    def file(self, relative: str) -> Path:
        """The path of one file of the artifact. UserError names it where it is missing or has changed its size."""
        path = self.path / relative
        listed = {f["path"]: int(f["bytes"]) for f in self.manifest["files"]}
        if relative not in listed or not path.is_file():
            raise UserError(f"{self.kind} {self.name!r} has no file {relative!r}", str(path), "make it again")
        if path.stat().st_size != listed[relative]:
            raise UserError(
                f"damaged: {path.stat().st_size} bytes, {listed[relative]} expected", str(path), "make it again"
            )
        return path

    def files(self, suffix: str = "") -> Iterator[str]:
        """The relative paths of the data files whose names end in `suffix`, in order."""
        return (f["path"] for f in self.manifest["files"] if f["path"].endswith(suffix))

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, oldest first; an empty list where the stage has no steps."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]

    def damage(self, deep: bool = False) -> list[str]:
        """What is wrong with the files, a line each: missing, another size and, if `deep`, another SHA-256."""
        wrong = []
        for f in self.manifest["files"]:
            path = self.path / f["path"]
            if not path.is_file():
                wrong.append(f"{path}: missing")
            elif path.stat().st_size != f["bytes"]:
                wrong.append(f"{path}: {path.stat().st_size} bytes, {f['bytes']} expected")
            elif deep and sha256_file(path) != f["sha256"]:
                wrong.append(f"{path}: contents differ from the manifest's SHA-256")
        return wrong


@dataclass(frozen=True)
class Foreign:
    """An input from outside the workspace: a file, a folder, or a hub name such as `hf:org/name`."""

    path: Path
    digest: str
    kind: str = "file"
    name: str = field(default="")

    def reference(self) -> dict[str, str]:
        """How a manifest names it among its inputs."""
        return {"kind": self.kind, "name": self.name or str(self.path), "digest": self.digest}
