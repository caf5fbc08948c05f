"""The loop: exact resume, exact accumulation, no step from a number that is none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_tiny import MadeUp, RandomTokens, TinyModel

from llmctl.errors import Interrupted, UserError
from llmctl.train import checkpoint
from llmctl.train.batch import Batch
from llmctl.train.compiling import compiled
from llmctl.train.loop import Hook, train
from llmctl.train.loss import Loss, lm_loss
from llmctl.train.settings import TrainSettings
from llmctl.train.spikes import Watch
from llmctl.workspace import Workspace

FP32 = {"precision": "fp32", "save_every": 3}


def settings(steps: int, **changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({"steps": steps, **FP32, **changes})


class StopsAt(RandomTokens):
    """Like a machine that dies while step `at` is under way."""

    def __init__(self, at: int, how: Any) -> None:
        super().__init__()
        self.at, self.how = at, how

    def batches(self, step: int) -> list[Batch]:
        if step == self.at:
            self.how()
        return super().batches(step)


def fail() -> None:
    raise RuntimeError("the power is gone")


class Counter:
    """What a method remembers besides the model."""

    def __init__(self) -> None:
        self.sum, self.seen = torch.zeros(()), 0

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum, self.seen = state["sum"], state["seen"]

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        found = lm_loss(model, batch)
        self.sum, self.seen = self.sum + found.total.detach(), self.seen + 1
        return found


def run(build: Any, console: Any, steps: int, source: Any, stop: Any = None, **changes: Any) -> tuple[Any, ...]:
    """Train a fresh model in a build that stays open: (weights, optimizer state, log rows, memory of the method)."""
    model, memory = TinyModel(), Counter()
    with pytest.raises(stop or KeyError), build() as b:
        train(model, source, memory.loss, settings(steps, **changes), build=b, console=console, title="t", state=memory)
        found = checkpoint.load(sorted(b.checkpoints.glob("step-*"))[-1])
        rows = b.metrics.rows()
        raise KeyError  # keep the build unfinished
    return () if stop else (checkpoint.weights_of(model), found.optimizer, rows, memory)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_is_exact_to_the_bit(tmp_path, console, optimizer, precision):
    whole, broken = Workspace(tmp_path / "a"), Workspace(tmp_path / "b")
    changes = {"optimizer": {"name": optimizer}, "precision": precision}
    weights, state, rows, memory = run(lambda: whole.build(MadeUp()), console, 20, RandomTokens(), **changes)
    run(lambda: broken.build(MadeUp()), console, 20, StopsAt(11, fail), stop=RuntimeError, **changes)
    again = run(lambda: broken.build(MadeUp()), console, 20, RandomTokens(), **changes)
    assert all(torch.equal(weights[k], again[0][k]) for k in weights)
    assert state.keys() == again[1].keys() and all(torch.equal(state[k], again[1][k]) for k in state)
    assert torch.equal(memory.sum, again[3].sum) and memory.seen == again[3].seen
    timeless = [{k: v for k, v in r.items() if k not in ("seconds", "wait_s", "tokens_per_s")} for r in rows]
    assert timeless == [{k: v for k, v in r.items() if k in timeless[0]} for r in again[2]]
    assert [r["step"] for r in again[2]] == list(range(1, 21))


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_nothing(tmp_path, console):
    here = Path(__file__).parent
    child = textwrap.dedent(f"""
        import sys, os, signal, random, threading, time
        sys.path.insert(0, {str(here)!r})
        import torch; torch.set_num_threads(1)
        from test_train_loop import *
        from llmctl.workspace import Workspace
        from llmctl.console import Console
        threading.Timer(float(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        run(lambda: Workspace({str(tmp_path / "b")!r}).build(MadeUp()), Console(quiet=True), 60, Slow(), save_every=1)
    """)
    for delay in (0.05, 0.21, 0.4):
        done = subprocess.run([sys.executable, "-c", child, str(delay)], capture_output=True, cwd=here, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    whole, broken = Workspace(tmp_path / "a"), Workspace(tmp_path / "b")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights, *_ = run(lambda: whole.build(MadeUp()), console, 60, RandomTokens())
        again, _, rows, _ = run(lambda: broken.build(MadeUp()), console, 60, RandomTokens())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(weights[k], again[k]) for k in weights)
    assert [r["step"] for r in rows] == list(range(1, 61))


class Slow(RandomTokens):
    def batches(self, step: int) -> list[Batch]:
        import time

        time.sleep(0.02)
        return super().batches(step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_so(build, console, number):
    source = StopsAt(4, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="step 5"), build() as b:
        train(TinyModel(), source, lm_loss, settings(20), build=b, console=console, title="t")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyError), build() as b:
        assert b.resumed
        done = train(TinyModel(), RandomTokens(), lm_loss, settings(20), build=b, console=console, title="t")
        assert done.resumed_from == 5
        raise KeyError


def test_a_damaged_checkpoint_gives_way_to_the_one_before(build, console, capsys):
    with pytest.raises(RuntimeError), build() as b:
        train(TinyModel(), StopsAt(8, fail), lm_loss, settings(20), build=b, console=console, title="t")
    newest = sorted(b.checkpoints.glob("step-*"))[-1]
    assert newest.name == "step-000006"
    (newest / "optimizer.safetensors").write_bytes((newest / "optimizer.safetensors").read_bytes()[:-9])
    with pytest.raises(KeyError), build() as b:
        done = train(TinyModel(), RandomTokens(), lm_loss, settings(20), build=b, console=console, title="t")
        assert done.resumed_from == 3
        raise KeyError
    assert "damaged checkpoint" in capsys.readouterr().err


def test_how_a_step_is_cut_into_micro_batches_does_not_matter(tmp_path, console):
    found = []
    for micro in (1, 8):
        space = Workspace(tmp_path / str(micro))
        source = RandomTokens(rows=8, micro=micro)
        model = TinyModel()
        model.dropout.p = 0.0
        with space.build(MadeUp()) as b:
            train(model, source, lm_loss, settings(6, clip=0), build=b, console=console, title="t")
            found.append((checkpoint.weights_of(model), [r["loss"] for r in b.metrics.rows()]))
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    for name, weight in found[0][0].items():
        torch.testing.assert_close(weight, found[1][0][name], atol=2e-5, rtol=1e-4)


def test_a_step_that_is_not_finite_is_left_out(build, console):
    calls = []

    def loss(model: nn.Module, batch: Batch) -> Loss:
        found = lm_loss(model, batch)
        calls.append(1)
        return Loss(found.total * float("nan"), found.count) if len(calls) == 3 else found

    with build() as b:
        model = TinyModel()
        done = train(model, RandomTokens(micro=1), loss, settings(6), build=b, console=console, title="t")
        assert done.skipped == 1 and b.metrics.rows()[2]["loss"] is None
        assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("spike", [0.0, 6.0])
def test_a_spike_is_left_out_where_it_is_watched_for(build, console, spike):
    """Batch 90 of 100 has a loss a hundred times too large: watched for, it changes nothing."""
    calls = []

    def loss(model: nn.Module, batch: Batch) -> Loss:
        found = lm_loss(model, batch)
        calls.append(1)
        return Loss(found.total * 100, found.count) if len(calls) == 90 else found

    with build() as b:
        model = TinyModel()
        source = RandomTokens(micro=1)
        done = train(model, source, loss, settings(100, spike=spike), build=b, console=console, title="t")
        rows = b.metrics.rows()
    assert done.skipped == (1 if spike else 0)
    assert rows[89]["loss"] > 50 * rows[88]["loss"] and rows[99].get("skipped", 0) == done.skipped


def test_a_spike_is_told_from_noise_and_from_the_beginning():
    noise, watch = random.Random(0), Watch()
    values = [3.0 + noise.gauss(0, 0.1) for _ in range(300)]
    for value in values:
        assert not watch.is_spike(value, 6.0)
        watch.follow(value)
    assert watch.is_spike(4.0, 6.0) and not watch.is_spike(1.0, 6.0) and not watch.is_spike(4.0, 0.0)
    assert not Watch(values[:20]).is_spike(1e9, 6.0)
    assert Watch([2.0] * 100).is_spike(2.1, 6.0) and not Watch([2.0] * 100).is_spike(2.0 + 1e-9, 6.0)


def test_a_run_without_a_future_ends_with_one_line(build, console):
    with pytest.raises(UserError, match="not been finite"), build() as b:
        train(
            TinyModel(),
            RandomTokens(),
            lambda m, x: Loss(lm_loss(m, x).total * float("inf"), 1.0),
            settings(50),
            build=b,
            console=console,
            title="t",
        )


def test_a_step_with_nothing_to_learn_from_changes_nothing(build, console):
    model = TinyModel()
    before = {k: v.clone() for k, v in checkpoint.weights_of(model).items()}

    def nothing(m: nn.Module, x: Batch) -> Loss:
        return Loss(lm_loss(m, x).total * 0, 0.0)

    with build() as b:
        train(model, RandomTokens(), nothing, settings(3), build=b, console=console, title="t")
    assert all(torch.equal(v, before[k]) for k, v in checkpoint.weights_of(model).items())


def test_it_learns_and_logs(build, console):
    with build() as b:
        hooked: list[int] = []
        hook = Hook(every=10, call=lambda step, model: hooked.append(step) or {"seen": step})
        done = train(
            TinyModel(), RandomTokens(rows=16), lm_loss, settings(60), build=b, console=console, title="t", hooks=[hook]
        )
        rows = [r for r in b.metrics.rows() if "loss" in r]
        assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
        assert hooked == [0, 10, 20, 30, 40, 50, 60]
        assert {"step": 60, "seen": 60} in b.metrics.rows()
        assert {"loss", "smooth_loss", "lr", "grad_norm", "tokens", "tokens_per_s", "seconds"} <= rows[-1].keys()
        assert done.tokens == 60 * 16 * 12 and done.last["seen"] == 60
        assert len(list(b.checkpoints.glob("step-*"))) == 2


class FakeWandb:
    """Its interface, as far as it is used; what it was told is in `rows`."""

    def __init__(self) -> None:
        self.rows, self.ended = {}, 0

    def init(self, **options: Any) -> FakeWandb:
        assert options["resume"] == "allow" and options["id"] == options["name"]
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.rows.setdefault(step, {}).update(numbers)

    def finish(self) -> None:
        self.ended += 1


def test_rows_go_to_the_trackers_that_are_asked_for(build, console, monkeypatch):
    there = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", there)
    hook = Hook(2, lambda step, model: {"seen": step, "text": "words"})
    with build() as b:
        train(
            TinyModel(), RandomTokens(), lm_loss, settings(4, trackers=["wandb"]), build=b, console=console, title="t",
            hooks=[hook], flops_per_token=1e6,
        )  # fmt: skip
        rows = b.metrics.rows()
    assert sorted(there.rows) == [0, 1, 2, 3, 4] and there.ended == 1
    assert there.rows[2]["seen"] == 2 and "text" not in there.rows[2]
    measured = [row for row in rows if "mfu" in row]
    assert [there.rows[r["step"]]["mfu"] for r in measured] == [r["mfu"] for r in measured] and len(measured) == 4
    # Utilisation is speed times work over what the machine can do: the same quotient in every row.
    peaks = [row["tokens_per_s"] * 1e6 / row["mfu"] for row in measured]
    assert peaks == pytest.approx([peaks[0]] * 4) and peaks[0] > 1e9


def test_a_tracker_that_is_not_installed_is_named(build, console, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"llmctl-toolkit\[wandb\]"), build() as b:
        train(
            TinyModel(), RandomTokens(), lm_loss, settings(2, trackers=["wandb"]), build=b, console=console, title="t"
        )


class Fixed(RandomTokens):
    fixed_shape = True


@pytest.mark.slow
def test_compiled_steps_are_the_same_steps(tmp_path, console):
    found = []
    for compile in (False, True):
        model = TinyModel()
        model.dropout.p = 0.0
        with Workspace(tmp_path / str(compile)).build(MadeUp()) as b:
            train(model, Fixed(), lm_loss, settings(5, compile=compile), build=b, console=console, title="t")
            found.append([r["loss"] for r in b.metrics.rows()])
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_what_auto_compiles(monkeypatch):
    monkeypatch.setattr("llmctl.train.compiling._WORTH_IT", 1e8)
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: ("compiled", dynamic))
    model = TinyModel()
    assert compiled(model, Fixed(), settings(1000)) == ("compiled", False)
    assert compiled(model, Fixed(), settings(1)) is model  # too short to be worth it
    assert compiled(model, RandomTokens(), settings(1000)) is model  # each shape would be compiled again
    assert compiled(model, RandomTokens(), settings(1, compile=True)) == ("compiled", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert compiled(model, Fixed(), settings(1000)) is model
    with pytest.raises(UserError, match="C\\+\\+ compiler"):
        compiled(model, Fixed(), settings(1000, compile=True))
