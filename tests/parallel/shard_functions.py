"""Functions for the shards of the tests: a child process imports them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.parallel import tick, whole_folder


def square(n: int) -> int:
    tick(n)
    return n * n


def process_id(_: Any) -> int:
    time.sleep(0.2)
    return os.getpid()


def wrong(task: str) -> None:
    if task == "mistake":
        raise UserError("no such page", "pages/a", "look again")
    raise ZeroDivisionError("deep inside")


def die_once(task: tuple[str, bool]) -> str:
    """Dies by SIGKILL where the second part is true, but only the first time."""
    folder, dies = task
    mark = Path(folder) / "died"
    if dies and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def die_always(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(seconds: float) -> None:
    time.sleep(seconds)


def tick_slowly(n: int) -> int:
    for _ in range(n):
        time.sleep(0.3)
        tick()
    return n


def spin(_: Any) -> None:
    while True:
        pass


def no_pickle(_: Any) -> Any:
    return lambda: None


def write_number(task: tuple[str, int]) -> int:
    """A folder with the task's number, made whole; slow enough to be killed in the middle."""
    folder, n = task
    with whole_folder(Path(folder) / f"{n:05d}") as making:
        (making / "a").write_text(str(n))
        time.sleep(0.02)
        (making / "b").write_text(str(n))
    return n


def guarded(task: str) -> str:
    if task == "spin":
        spin(None)
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "raise":
        raise ZeroDivisionError("deep inside")
    if task == "sleep":
        time.sleep(60)
    return task.upper()
