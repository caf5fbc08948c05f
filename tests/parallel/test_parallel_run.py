"""Shards over processes: results, mistakes, lost workers, resume."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # children inherit the path, and import the functions by name

import shard_functions as functions

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.parallel import Crashed, Failed, Guard, TimedOut, run_shards, whole_file, whole_folder
from llmctl.parallel.outcome import attempt


class Heard(Console):
    """A console that keeps its warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_task_gives_its_result_once(workers: int) -> None:
    assert sorted(run_shards(functions.square, range(7), workers)) == [n * n for n in range(7)]


def test_no_tasks() -> None:
    assert list(run_shards(functions.square, [], 4)) == []


def test_one_worker_runs_in_this_process_and_two_do_not() -> None:
    assert set(run_shards(functions.process_id, range(3), 1)) == {os.getpid()}
    others = set(run_shards(functions.process_id, range(4), 2))
    assert os.getpid() not in others and len(others) == 2


def test_shards_that_are_done_are_skipped() -> None:
    assert sorted(run_shards(functions.square, range(6), 2, done=lambda n: n % 2 == 0)) == [1, 9, 25]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_of_the_person_comes_back_as_one(workers: int) -> None:
    with pytest.raises(UserError) as e:
        list(run_shards(functions.wrong, ["mistake"] * 2, workers))
    assert (e.value.what, e.value.where, e.value.fix) == ("no such page", "pages/a", "look again")


def test_a_defect_comes_back_with_its_traceback_and_the_shards_name() -> None:
    with pytest.raises(Failed, match=r"(?s)page 1 failed.*shard_functions.*ZeroDivisionError: deep inside"):
        list(run_shards(functions.wrong, ["defect"] * 2, 2, name=lambda _: "page 1"))


def test_a_result_that_cannot_be_pickled_is_a_defect_and_not_a_hang() -> None:
    with pytest.raises(Failed, match="cannot be sent"):
        list(run_shards(functions.no_pickle, [1, 2], 2))


def test_a_worker_that_dies_is_named_and_its_shard_tried_again(tmp_path: Path) -> None:
    console = Heard()
    tasks = [(str(tmp_path), n == 1) for n in range(4)]
    assert list(run_shards(functions.die_once, tasks, 2, console=console)) == ["alive"] * 4
    assert console.warnings == ["a worker was lost on shard 2 of 4 (SIGKILL); trying it again"]


def test_a_shard_that_kills_every_worker_ends_the_run() -> None:
    with pytest.raises(UserError, match=r"a worker was lost on shard \d of 2 \(SIGSEGV\); tries: 2"):
        list(run_shards(functions.die_always, [1, 2], 2))
    assert not _children()


def test_a_worker_that_hangs_is_ended() -> None:
    with pytest.raises(UserError, match="no sign of life for 1 s"):
        list(run_shards(functions.hang, [60.0, 60.0], 2, patience=1.0, retries=0))
    assert not _children()


def test_ticks_are_signs_of_life() -> None:
    # 8 x 0.3 s is longer than the patience; each silence is not.
    assert list(run_shards(functions.tick_slowly, [8, 8], 2, patience=2.0)) == [8, 8]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bar_counts_what_is_ticked(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("llmctl.console.Progress.advance", lambda self, by=1, note=None: seen.append(by))
    list(run_shards(functions.square, [1, 2, 3, 4], workers, console=Console(quiet=True), unit="pages", total=10))
    assert sum(seen) == 10


def test_leaving_early_ends_the_workers() -> None:
    results = run_shards(functions.process_id, range(100), 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not _children()


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="no engine"):
        list(run_shards(functions.square, [1], engine="slurm"))


def test_ray_that_is_not_installed_gives_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"not installed(?s:.*)pip install"):
        list(run_shards(functions.square, [1], engine="ray"))


@pytest.mark.slow
def test_ray_gives_what_local_processes_give(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import `functions` by its name
    assert sorted(run_shards(functions.square, range(5), 2, "ray")) == [0, 1, 4, 9, 16]
    with pytest.raises(UserError, match="no such page"):
        list(run_shards(functions.wrong, ["mistake"], 2, "ray"))


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_it_ends_complete(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "run_until_killed.py"), str(tmp_path / "out"), "40", "2"]
    moments = random.Random(0)
    for _ in range(4):
        run = subprocess.Popen(command, stdout=subprocess.PIPE)
        time.sleep(moments.uniform(0.2, 0.9))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    for n in range(40):
        for part in "ab":
            assert (tmp_path / "out" / f"{n:05d}" / part).read_text() == str(n)


def test_ctrl_c_ends_the_run_and_its_children(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "run_until_killed.py"), str(tmp_path), "10000", "2"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert run.stdout and run.stderr
    run.stdout.readline()
    os.killpg(run.pid, signal.SIGINT)  # the terminal sends it to all of them
    assert run.wait(20) == 130
    assert run.stderr.read() == b""


def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "run_until_killed.py"), str(tmp_path), "10000", "2"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert run.stdout
    run.stdout.readline()
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children and not alive


def test_a_guard_answers_times_out_survives_crashes_and_goes_on() -> None:
    with Guard(functions.guarded, seconds=0.5) as guard:
        assert guard("a") == "A"
        with pytest.raises(TimedOut):
            guard("spin")
        assert guard("b") == "B"
        with pytest.raises(Crashed, match="SIGSEGV"):
            guard("crash")
        with pytest.raises(Failed, match="deep inside"):
            guard("raise")
        assert guard("c") == "C"
    assert not _children()


@pytest.mark.slow
def test_a_guard_ends_a_child_that_sleeps() -> None:
    with Guard(functions.guarded, seconds=0.1) as guard, pytest.raises(TimedOut):
        guard("sleep")


def test_an_output_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "x") as making:
        (making / "a").write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "y") as making:
        making.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "x") as making:
        (making / "a").write_text("all")
    with whole_file(tmp_path / "y") as making:
        making.write_text("all")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


def test_several_mistakes_stay_readable_across_processes() -> None:
    from llmctl.errors import UserErrors

    def fail(_: object) -> None:
        raise UserErrors([UserError("one", "a"), UserError("two", "b")])

    kind, parts = attempt(fail, None)
    assert kind == "mistake" and UserError(*parts).message() == "a: one\nb: two"


_OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def _others() -> None:
    """The children that are there already: other tests of this process may have left a server standing ready."""
    _OTHERS.clear()
    _OTHERS.update(p.pid for p in psutil.Process().children())


def _children() -> list[psutil.Process]:
    """This test's child processes, without multiprocessing's own resource tracker, which stays by design."""
    found = [p for p in psutil.Process().children() if p.pid not in _OTHERS]
    return [p for p in found if "resource_tracker" not in " ".join(p.cmdline())]
