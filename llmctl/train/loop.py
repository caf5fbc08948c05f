"""The one training loop: pretrain, sft, rm and rl hand it their batches and their loss.

What it promises: the gradient of a step is that of the global mean over everything trained on; a run killed anywhere
and taken up again ends with the same weights, bit for bit on a CPU; Ctrl-C and SIGTERM finish the step, save and say
so; a step whose loss or gradient is not finite, or a spike, is left out, never applied.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmctl.console import Console, Progress
from llmctl.errors import Interrupted, UserError
from llmctl.train import checkpoint, distributed, memory
from llmctl.train.batch import Batch
from llmctl.train.compiling import compile_blocks, compiled, wanted
from llmctl.train.device import autocast, compute_dtype
from llmctl.train.fp8 import use_fp8
from llmctl.train.fsdp import Shards, twin
from llmctl.train.loss import Loss
from llmctl.train.optimizer import Optimizer
from llmctl.train.peak import peak_rate
from llmctl.train.schedule import rate_at
from llmctl.train.settings import TrainSettings
from llmctl.train.spikes import Watch
from llmctl.train.trackers import Trackers
from llmctl.workspace import Build

_MAX_SKIPPED = 10  # steps in a row without a finite gradient, after which the run has no future
_SMOOTH = 0.95  # of the moving average of the loss: about the last 20 steps


class Source(Protocol):
    """Where the data of a step comes from."""

    def batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of update `step` (0-based): a function of it and, for roll-outs, of the model alone."""


class Stateful(Protocol):
    """What a method remembers besides model and optimizer; it is saved and restored with them."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values by name."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


LossFn = Callable[[nn.Module, Batch], Loss]


@dataclass
class Hook:
    """Something to do every so many updates: sample, evaluate. What it returns goes into the log of that step.

    `call(step, model)` sees the model after `step` updates. `first`: also before the first; `last`: after the last.
    """

    every: int
    call: Callable[[int, nn.Module], dict[str, Any]]
    first: bool = True
    last: bool = True

    def due(self, step: int, steps: int) -> bool:
        """Whether it is time after `step` of `steps` updates."""
        if step == 0:
            return self.first
        return (self.last and step == steps) or (self.every > 0 and step % self.every == 0)


@dataclass
class Outcome:
    """What a finished run has to say."""

    steps: int
    seconds: float  # spent in steps, over all the runs that it took
    tokens: int
    skipped: int
    loss: float  # smoothed
    last: dict[str, Any]  # the last row of the log
    resumed_from: int | None


@dataclass
class _Progress:
    """What the log remembers from step to step; part of the checkpoint."""

    seconds: float = 0.0
    tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    smooth: float | None = None
    losses: list[float] = field(default_factory=list)  # the last ones, and their gradients' norms, to know a spike by
    norms: list[float] = field(default_factory=list)

    def follow(self, loss: float) -> None:
        self.smooth = loss if self.smooth is None else _SMOOTH * self.smooth + (1 - _SMOOTH) * loss


def train(
    model: nn.Module,
    source: Source,
    loss_fn: LossFn,
    settings: TrainSettings,
    *,
    build: Build,
    console: Console,
    title: str,
    hooks: Sequence[Hook] = (),
    state: Stateful | None = None,
    flops_per_token: float = 0.0,
    parallel: str = "ddp",
    fp8: bool = False,
) -> Outcome:
    """Train `model` in place for `settings.steps` updates, from the newest checkpoint of `build` where it has one.

    Where `flops_per_token` is given, the log has MFU: against the data sheet of a GPU, the measured rate of matrix
    products of a CPU.

    With several processes under torchrun, `parallel` "ddp" gives each the whole model, "fsdp" a part of it; a
    checkpoint is the same from either, and from one process. `fp8` makes the blocks' products in 8 bits.

    Raises Interrupted, progress saved, on SIGINT or SIGTERM; UserError when the loss stays NaN.
    """
    distributed.join()
    run = _Run(model, source, loss_fn, settings, build, console, title, list(hooks), state, flops_per_token)
    run.parted, run.fp8 = parallel == "fsdp" and distributed.size() > 1, fp8
    return run.go()


@dataclass
class _Run:
    model: nn.Module
    source: Source
    loss_fn: LossFn
    settings: TrainSettings
    build: Build
    console: Console
    title: str
    hooks: list[Hook]
    state: Stateful | None
    flops_per_token: float
    at: _Progress = field(default_factory=_Progress)
    row: dict[str, Any] = field(default_factory=dict)
    losses: Watch = field(default_factory=Watch)
    norms: Watch = field(default_factory=Watch)
    parted: bool = False
    fp8: bool = False
    shards: Shards | None = None

    def go(self) -> Outcome:
        self.device = next(self.model.parameters()).device
        memory.keep()
        begin = self.prepare()
        self.peak = peak_rate(self.settings.precision) * distributed.size() if self.flops_per_token else 0.0
        self.trackers = Trackers(self.trackers_wanted(), self.build.root, self.build.name)
        saved = time.monotonic()
        with (
            self.trackers,
            _stop_signals() as stopped,
            _quiet_gc(),
            self.console.progress(self.title, self.settings.steps, "steps") as bar,
        ):
            bar.start_at(begin)
            if begin == 0:
                self.run_hooks(0)
            for step in range(begin, self.settings.steps):
                self.one_step(step, bar)
                self.run_hooks(step + 1)
                due = time.monotonic() - saved > self.settings.save_minutes * 60
                due |= self.settings.save_every > 0 and (step + 1) % self.settings.save_every == 0
                # What one process wants all do, at one step: a signal may reach one alone, and clocks differ.
                stop, due = (n > 0 for n in distributed.sum_numbers([stopped.is_set(), due]))
                if due or stop or step + 1 == self.settings.steps:
                    self.save(step + 1)
                    saved = time.monotonic()
                if stop:
                    distributed.leave()
                    raise Interrupted(f"saved at step {step + 1:,}; run the same command again to go on")
        if self.shards:
            self.shards.fill()
        return self.outcome(begin)

    def prepare(self) -> int:
        """Model and optimizer as the newest checkpoint has them, where there is one: the number of updates it has."""
        found = self.restore()
        if found:
            checkpoint.put_weights(self.model, found.model)
        dtype = compute_dtype(self.settings.precision, self.device)
        self.computes = twin(self.model) if self.parted or self.fp8 else self.model
        if self.fp8:
            use_fp8(self.computes)
        if self.parted:
            if wanted(self.model, self.source, self.settings):
                compile_blocks(self.computes, self.source)
            self.shards = Shards(self.model, self.computes, dtype)
            self.forward = self.computes
        else:
            self.forward = compiled(self.computes, self.source, self.settings)
        self.optimizer = Optimizer(self.model, self.settings.optimizer, dtype, self.shards)
        if found:
            self.optimizer.load(self.shards.cut_state(found.optimizer) if self.shards else found.optimizer)
        return found.step if found else 0

    def one_step(self, step: int, bar: Progress) -> None:
        begun = time.monotonic()
        torch.manual_seed(self.build.seed * 1_000_003 + step)  # the same numbers wherever the run was taken up
        self.computes.train()
        batches = [distributed.part(b).to(self.device) for b in self.source.batches(step)]
        waited = time.monotonic() - begun
        loss, norm, logs = self.update(step, batches)
        seconds = time.monotonic() - begun
        tokens = int(distributed.sum_numbers([sum(b.tokens for b in batches)])[0])
        self.at.seconds += seconds
        self.at.tokens += tokens
        rate = rate_at(step, self.settings.steps, self.settings.schedule)
        self.row = {"step": step + 1, "loss": loss, "smooth_loss": self.at.smooth, **logs}
        self.row |= {"lr": rate * _shown_lr(self.settings), "grad_norm": norm, "tokens": self.at.tokens}
        self.row |= {"tokens_per_s": tokens / seconds, "wait_s": waited, "seconds": self.at.seconds}
        self.row |= {"mfu": self.flops_per_token * tokens / seconds / self.peak} if self.peak else {}
        self.row |= {"skipped": self.at.skipped} if self.at.skipped else {}
        if (step + 1) % self.settings.log_every == 0 or step + 1 == self.settings.steps:
            self.log(self.row)
        bar.advance(1, self.note(step + 1))

    def update(self, step: int, batches: Sequence[Batch]) -> tuple[float, float, dict[str, float]]:
        """Gradient of the step, and the update unless something in it is not finite: (loss, gradient norm, logs)."""
        total, count = 0.0, 0.0
        sums: dict[str, float] = {}
        for batch in batches:
            with autocast(self.settings.precision, self.device):
                loss = self.loss_fn(self.forward, batch)
            loss.total.backward()
            total, count = total + float(loss.total.detach()), count + float(loss.count)
            for key, value in loss.logs.items():
                sums[key] = sums.get(key, 0.0) + float(value)
        total, count, *summed = distributed.sum_numbers([total, count, *sums.values()])
        sums = dict(zip(sums, summed, strict=True))
        if not count:  # nothing to learn from in this step (roll-outs without a spread of rewards)
            self.optimizer.clear()
            return 0.0, 0.0, {}
        norm = self.scale_gradients(1 / count)
        mean = total / count
        if not (abs(mean) < float("inf") and norm < float("inf")) or self.spiked(mean, norm):
            self.skip(step)
            return mean, norm, {}
        self.optimizer.step(rate_at(step, self.settings.steps, self.settings.schedule))
        self.at.skipped_in_a_row = 0
        self.at.follow(mean)
        self.losses.follow(mean)
        self.norms.follow(norm)
        return mean, norm, {k: v / count for k, v in sums.items()}

    def spiked(self, loss: float, norm: float) -> bool:
        deviations = self.settings.spike
        return self.losses.is_spike(loss, deviations) or self.norms.is_spike(norm, deviations)

    def scale_gradients(self, factor: float) -> float:
        """Multiply the gradients by `factor` and clip them; the norm before clipping."""
        if self.shards:
            self.shards.take_gradients()
        grads = [p.grad for p in self.optimizer.params if p.grad is not None]
        if not self.shards:
            distributed.sum_gradients(grads)
        norm = float(torch.nn.utils.get_total_norm(grads))
        if self.shards:
            norm = distributed.sum_numbers([norm**2])[0] ** 0.5
        norm *= factor
        if self.settings.clip and norm > self.settings.clip:
            factor *= self.settings.clip / norm
        torch._foreach_mul_(grads, factor)
        return norm

    def skip(self, step: int) -> None:
        self.optimizer.clear()
        self.at.skipped += 1
        self.at.skipped_in_a_row += 1
        if self.at.skipped_in_a_row >= _MAX_SKIPPED:
            raise UserError(
                f"the loss or its gradient has not been finite, or far above the last ones, for {_MAX_SKIPPED} steps, "
                f"up to step {step + 1}; the weights are still those of before",
                self.title,
                "lower optimizer.lr and optimizer.matrix_lr, or set precision: fp32",
            )

    def run_hooks(self, step: int) -> None:
        due = [hook for hook in self.hooks if hook.due(step, self.settings.steps)]
        if not due:
            return
        with self.whole() as model:
            model.eval()
            for hook in due:
                found = hook.call(step, model)
                if found:
                    self.row |= found
                    self.log({"step": step, **found})

    def whole(self) -> AbstractContextManager[nn.Module]:
        """The model with all its weights in this process, for what is done between steps."""
        return self.shards.whole() if self.shards else nullcontext(self.model)

    def log(self, row: dict[str, Any]) -> None:
        self.build.metrics.log(**row)
        self.trackers.log(int(row["step"]), row)

    def trackers_wanted(self) -> Sequence[str]:
        return () if distributed.rank() else self.settings.trackers

    def save(self, step: int) -> None:
        weights = self.optimizer.state()
        if self.shards:
            weights = self.shards.gather_state(weights)
        with self.whole() as model:
            if distributed.rank() == 0:
                self.write(step, model, weights)

    def write(self, step: int, model: nn.Module, weights: dict[str, Tensor]) -> None:
        extra = self.state.state_dict() if self.state else {}
        tensors = {k: v for k, v in extra.items() if isinstance(v, Tensor)}
        rest = {k: v for k, v in extra.items() if k not in tensors}
        self.at.losses, self.at.norms = list(self.losses.values), list(self.norms.values)
        known = {"progress": vars(self.at), "row": self.row, "extra": rest}
        checkpoint.save(self.build.checkpoints, step, model, weights, known, tensors, self.settings.keep_last)

    def restore(self) -> checkpoint.Checkpoint | None:
        """The newest whole checkpoint, where there is one; what is no weight of model or optimizer is taken over."""
        found, damaged = self.newest()
        for line in damaged:
            self.console.warn(f"damaged checkpoint left out: {line}")
        self.build.metrics.rewind(found.step if found else -1)
        if found is None:
            return None
        self.at = _Progress(**found.state["progress"])
        self.losses, self.norms = Watch(self.at.losses), Watch(self.at.norms)
        self.row = found.state["row"]
        if self.state:
            self.state.load_state_dict({**found.state["extra"], **found.extra})
        self.console.info(f"{self.title}: going on from step {found.step:,}")
        return found

    def newest(self) -> tuple[checkpoint.Checkpoint | None, list[str]]:
        """The checkpoint to go on from, the same in every process, and the damaged ones that were passed over."""
        found: checkpoint.Checkpoint | None = None
        damaged: list[str] = []
        if distributed.rank() == 0 and self.build.resumed:
            found, damaged = checkpoint.newest(self.build.checkpoints)
        step = distributed.agree(found.step if found else -1)
        if distributed.rank() and step >= 0:
            found = checkpoint.load(checkpoint.place(self.build.checkpoints, step))
        return found, damaged

    def note(self, step: int) -> str:
        rate = self.at.tokens / max(self.at.seconds, 1e-9)
        left = self.at.seconds / step * (self.settings.steps - step)
        mfu = f"  MFU {self.flops_per_token * rate / self.peak:.0%}" if self.peak else ""
        return f"loss {self.at.smooth or 0.0:.3f}  {rate:,.0f} tokens/s{mfu}  {duration(left)} left"

    def outcome(self, begin: int) -> Outcome:
        at, loss = self.at, float("nan") if self.at.smooth is None else self.at.smooth
        return Outcome(self.settings.steps, at.seconds, at.tokens, at.skipped, loss, self.row, begin if begin else None)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42s, 3m10s, 2h05m."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"


def _shown_lr(settings: TrainSettings) -> float:
    return settings.optimizer.matrix_lr if settings.optimizer.name == "muon" else settings.optimizer.lr


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT stops at once. Only the main thread hears signals."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: Any) -> None:
        if stopped.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopped.set()

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_gc() -> Iterator[None]:
    """Python's cycle collector off: it walks every live object every few steps and finds nothing (nanochat: 0.5 s)."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
