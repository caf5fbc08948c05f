"""The rows of a task: from files beside its YAML file, or from a data set of the hub."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, nearest
from llmctl.eval.task_file import Task, read_task
from llmctl.formats.json_rows import Skipped, read_rows

Row = dict[str, Any]
_LOCAL = ("json", "csv", "parquet", "text")


def files_of(name: str) -> list[Path]:
    """What a measurement on a task file depends on: the file itself and its data."""
    task = read_task(name)
    files = _files(task) or {}
    return [task.path, *(path for paths in files.values() for path in paths)]


class Splits:
    """The splits of a task, each read when it is first asked for."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.files = _files(task)
        self._rows: dict[str, list[Row]] = {}

    def rows(self, split: str) -> list[Row]:
        """The rows of a split, at least one. UserError where it is absent or empty."""
        if split not in self._rows:
            found = self._local(split) if self.files is not None else _from_hub(self.task, split)
            if not found:
                raise UserError(f"the split {split!r} is empty", str(self.task.path), "give it rows, or name another")
            self._rows[split] = found
        return self._rows[split]

    @property
    def asked(self) -> str:
        """The split whose rows are asked: `test_split`, else `validation_split`, else the only one there is."""
        settings = self.task.settings
        named = settings.test_split or settings.validation_split
        if named:
            return named
        if self.files is not None and len(self.files) == 1:
            return next(iter(self.files))
        raise UserError("it names no split to ask", str(self.task.path), "add test_split or validation_split")

    def _local(self, split: str) -> list[Row]:
        assert self.files is not None
        if split not in self.files:
            there = ", ".join(self.files)
            raise UserError(
                f"no split {split!r} in data_files{nearest(split, self.files)}", str(self.task.path), f"there: {there}"
            )
        rows = [row for path in self.files[split] for row in _read(path, self.task.settings.dataset_path)]
        # As in a table, a column that a row lacks is empty there.
        columns = dict.fromkeys(key for row in rows for key in row)
        return [{**dict.fromkeys(columns), **row} for row in rows]


def _files(task: Task) -> dict[str, list[Path]] | None:
    """The files of each split; None for a data set of the hub."""
    settings = task.settings
    named = settings.data_files or (settings.dataset_kwargs or {}).get("data_files")
    if settings.dataset_path not in _LOCAL:
        return None
    if not named:
        raise UserError(
            f"dataset_path is {settings.dataset_path!r}, but there are no data_files",
            str(task.path),
            "add data_files: FILE, or one for each split",
        )
    splits: Mapping[str, Any] = named if isinstance(named, dict) else {"train": named}
    return {
        str(split): [_path(str(f), task) for f in (files if isinstance(files, list) else [files])]
        for split, files in splits.items()
    }


def _path(name: str, task: Task) -> Path:
    """As seen from the task file or else, as the harness does, from here."""
    beside = task.path.parent / name
    return beside if beside.exists() else Path(name)


def _read(path: Path, form: str) -> list[Row]:
    if form == "json":
        rows = []
        for row in read_rows(path):
            if isinstance(row, Skipped):
                raise UserError(row.why, f"{row.file}:{row.line}")
            rows.append(row.value)
        return rows
    try:
        if form == "csv":
            with path.open(encoding="utf-8", newline="") as f:
                return [dict(row) for row in csv.DictReader(f)]
        if form == "text":
            return [{"text": line.rstrip("\n")} for line in path.open(encoding="utf-8")]
        import pyarrow.parquet as pq

        rows = pq.read_table(path).to_pylist()
        return list(rows)
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror or e}", str(path), "check the path") from e
    except ValueError as e:  # pyarrow's errors and UnicodeDecodeError are of this kind
        raise UserError(f"it is no {form} file: {str(e).splitlines()[0]}", str(path)) from e


def _from_hub(task: Task, split: str) -> list[Row]:
    """A split of a data set of the Hugging Face hub, from its cache where there is no network."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    settings = task.settings
    name = f"{settings.dataset_path}/{settings.dataset_name}" if settings.dataset_name else settings.dataset_path
    kwargs = {k: v for k, v in (settings.dataset_kwargs or {}).items() if k != "trust_remote_code"}
    where = f"{task.path}, data set {name}"
    # Without a network every retry is a line; what came of them is said once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        rows = load_dataset(settings.dataset_path, settings.dataset_name, split=split, **kwargs)
    except DatasetNotFoundError as e:
        gated = "gated" in str(e)
        what = "its owner gives it on request only" if gated else "there is no such data set on the hub"
        fix = "ask on its page, then set HF_TOKEN" if gated else "check the name; a private one needs HF_TOKEN"
        raise UserError(what, where, fix) from e
    except ValueError as e:  # an unknown split, an unknown part
        raise UserError(str(e).splitlines()[0], where) from e
    except Exception as e:
        # The libraries below raise whatever their transports raise: all of it means that the data cannot be had.
        what = str(e).splitlines()[0] if str(e) else type(e).__name__
        fix = "go online once, or download it and name the files: dataset_path: json, data_files"
        raise UserError(f"it cannot be had: {what}", where, fix) from e
    return [json_row(row) for row in rows]


def json_row(row: Mapping[str, Any]) -> Row:
    """Plain data: what a per-item file can hold."""
    return dict(json.loads(json.dumps(row, default=str)))
