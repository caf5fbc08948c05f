"""The step log elsewhere too: Weights & Biases or TensorBoard. `metrics.jsonl` is written whatever is chosen here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from llmctl.errors import UserError


class Trackers:
    """Hands every row on to the trackers that are asked for. Use it as a context manager."""

    def __init__(self, names: Sequence[str], folder: Path, run: str) -> None:
        self._names, self._folder, self._run = names, folder, run
        self._logs: list[Any] = []
        self._ends = ExitStack()

    def __enter__(self) -> Trackers:
        for name in self._names:
            self._logs.append({"wandb": self._wandb, "tensorboard": self._tensorboard}[name]())
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._ends.close()

    def log(self, step: int, row: dict[str, Any]) -> None:
        """The numbers of a row; text stays in the log on disk."""
        numbers = {k: v for k, v in row.items() if isinstance(v, (int, float)) and k != "step"}
        for log in self._logs:
            log(step, numbers)

    def _wandb(self) -> Any:
        wandb = _module("wandb", "wandb")
        run = wandb.init(project="llmctl", name=self._run, id=self._run, resume="allow", dir=str(self._folder))
        self._ends.callback(run.finish)
        return lambda step, numbers: run.log(numbers, step=step)

    def _tensorboard(self) -> Any:
        writer = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter(
            str(self._folder / "tensorboard" / self._run)
        )
        self._ends.callback(writer.close)

        def log(step: int, numbers: dict[str, Any]) -> None:
            for name, number in numbers.items():
                writer.add_scalar(name, number, step)

        return log


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError as e:
        raise UserError(
            f"{package} is not installed", "train.trackers", f"pip install 'llmctl-toolkit[{package}]', or leave it out"
        ) from e
