"""Making an artifact: built in a folder beside, sealed with a manifest, then renamed into place.

The folder under construction survives a kill. It is taken up again when the same stage runs with the same settings on
the same inputs (the same fingerprint), and thrown away otherwise. The manifest is the last file written, so a folder
that has one is whole; a kill between that and the rename is mended by `Workspace.recover`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from llmctl import __version__
from llmctl.workspace.artifact import Artifact, Foreign
from llmctl.workspace.card import finish_card
from llmctl.workspace.files import fsync_dir, fsync_file, is_torn, sha256_file, sha256_json, write_json
from llmctl.workspace.lock import Lock
from llmctl.workspace.metrics import Metrics

# Scratch of the making, not part of what is made.
OLD = ".old-"
"""Begins the name of a replaced version on its way out; no artifact's name begins with a dot."""
_PRIVATE = ("building.json", "checkpoints", "scratch")


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Build:
    """A context manager: inside it write below `path`; a clean exit seals the artifact, an exception keeps progress.

    `resumed` is true where an earlier, unfinished run with the same fingerprint is being taken up.
    `figures` goes into the manifest. `scratch` and `checkpoints` are folders for progress that is dropped at the end.
    """

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        stage: str,
        settings: dict[str, Any],
        inputs: Sequence[Artifact | Foreign],
        fingerprint: str,
        work: Path,
        final: Path,
        lock: Lock,
        seed: int,
    ) -> None:
        self.kind, self.name, self.stage, self.settings = kind, name, stage, settings
        self.inputs, self.fingerprint, self.seed = list(inputs), fingerprint, seed
        self.path, self._final, self._lock = work, final, lock
        self.figures: dict[str, Any] = {}
        self.resumed = False
        self.artifact: Artifact | None = None
        self._begun = time.monotonic()
        self._spent = 0.0
        self._started = now()

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self._final.parent.parent

    @property
    def scratch(self) -> Path:
        """A folder for progress that is not part of the artifact."""
        return self._folder("scratch")

    @property
    def checkpoints(self) -> Path:
        """A folder for training checkpoints, dropped when the artifact is sealed."""
        return self._folder("checkpoints")

    @property
    def metrics(self) -> Metrics:
        """The step log."""
        return Metrics(self.path / "metrics.jsonl")

    def __enter__(self) -> Build:
        self._lock.acquire()
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self._seal()
                self.artifact = promote(self.path, self._final)
            elif self.path.exists():
                self._note()
        finally:
            self._lock.release()

    def done(self) -> Artifact:
        """The finished artifact; only after the `with` block has been left cleanly."""
        assert self.artifact is not None, "done() inside the build"
        return self.artifact

    def _folder(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _open(self) -> None:
        note = self.path / "building.json"
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if found.get("fingerprint") == self.fingerprint and not (self.path / "manifest.json").exists():
            self.resumed = True
            self._spent = float(found.get("seconds") or 0.0)
            self._started = str(found.get("started") or self._started)
        else:
            if self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
        self._note()

    def _note(self) -> None:
        write_json(
            self.path / "building.json",
            {"fingerprint": self.fingerprint, "started": self._started, "seconds": self._seconds()},
        )

    def _seconds(self) -> float:
        return round(self._spent + time.monotonic() - self._begun, 3)

    def _seal(self) -> None:
        """Hash, fsync and list every file, then write the manifest: from there on the folder is whole."""
        if self.kind == "model":
            finish_card(self.path, self.stage, self.seed, self.inputs, self.figures)
        files = []
        for p in sorted(p for p in self.path.rglob("*") if p.is_file()):
            relative = p.relative_to(self.path)
            if relative.parts[0] in _PRIVATE or relative.as_posix() == "manifest.json":
                continue
            if is_torn(p):
                p.unlink()
                continue
            fsync_file(p)
            files.append({"path": relative.as_posix(), "bytes": p.stat().st_size, "sha256": sha256_file(p)})
        # The step log carries timings, so it would make equal data look different.
        data = [(f["path"], f["sha256"]) for f in files if f["path"] != "metrics.jsonl"]
        write_json(
            self.path / "manifest.json",
            {
                "kind": self.kind,
                "name": self.name,
                "stage": self.stage,
                "digest": sha256_json(data),
                "fingerprint": self.fingerprint,
                "settings": self.settings,
                "inputs": [i.reference() for i in self.inputs],
                "seed": self.seed,
                "versions": versions(),
                "started": self._started,
                "finished": now(),
                "seconds": self._seconds(),
                "figures": self.figures,
                "files": files,
            },
        )


class Follower(Build):
    """The same artifact in a process that helps another to make it (torchrun's rank above 0): it reads the checkpoints
    of the one that leads, and what it writes itself goes nowhere.
    """

    def __enter__(self) -> Build:
        self._leads = self.path
        self.path = Path(tempfile.mkdtemp(prefix="llmctl-follower-"))
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def checkpoints(self) -> Path:
        """The leading process's."""
        return self._leads / "checkpoints"

    def done(self) -> Artifact:
        """Where the artifact will be; the leading process may still be sealing it."""
        return Artifact(kind=self.kind, name=self.name, path=self._final)


def follows() -> bool:
    """Whether this process was started by torchrun to help another."""
    return int(os.environ.get("RANK", "0")) > 0


def promote(work: Path, final: Path) -> Artifact:
    """Move a sealed folder into its place, without its scratch. An older one is moved aside and removed after."""
    for private in _PRIVATE:
        target = work / private
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    old = work.with_name(OLD + work.name)
    if old.exists():
        shutil.rmtree(old)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        final.rename(old)
    work.rename(final)
    fsync_dir(final.parent)
    if old.exists():
        shutil.rmtree(old)
    return Artifact(kind=final.parent.name, name=final.name, path=final)


def versions() -> dict[str, str]:
    """The versions a person needs to repeat a run. Nothing is imported for it."""
    found = {"llmctl": __version__, "python": sys.version.split()[0]}
    for package in ("torch", "tokenizers", "trafilatura", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
