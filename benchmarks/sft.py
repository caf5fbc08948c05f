"""Our fine-tuning beside TRL's SFTTrainer: tokens a second on the same model and the same conversations.

    python benchmarks/sft.py                       # both, if `trl` can be imported (pip install trl); else ours alone
    python benchmarks/sft.py --precision bf16 --steps 12
    python benchmarks/sft.py --conversations FILE  # single questions with answers; by default made by this script

The model has 20 million parameters (width 384, 6 layers, vocabulary 24,576), rows have 256 tokens and an update 16 of
them. Both pack best fit first, learn the answers alone and step with AdamW in float32; nothing is compiled unless
--compile asks for it (of ours). A step's time is the wall clock from drawing the batch to the end of the update; the
figure is the tokens that are no padding over the median time, the first steps left out. Both say their first losses,
which differ by no more than the order of the data.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from llmctl.console import Console
from llmctl.formats.conversations import read_conversations
from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.model.transformer import Transformer
from llmctl.sft.config import SftConfig
from llmctl.sft.stage import run
from llmctl.workspace import Workspace

CONTEXT, ROWS, VOCABULARY, WARM = 256, 16, 24_576, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=Path)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=8, help="updates, of which the first two are not counted")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", choices=("ours", "trl"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = conversations(given.conversations)
        model = made_model(Path(folder) / "model", rows)
        found = {}
        if given.only != "trl":
            found["llmctl"] = ours(Path(folder), model, rows, given)
        if given.only != "ours":
            if find_spec("trl"):
                found["TRL"] = theirs(Path(folder), model, rows, given)
            else:
                Console().warn("trl is not installed: pip install trl")
    report(found, given)


def conversations(path: Path | None) -> list[dict[str, Any]]:
    """Rows of one question and one answer."""
    if path:
        found = [{"messages": row["messages"][:2]} for row in read_conversations(path).rows]
        return [row for row in found if [m["role"] for m in row["messages"]] == ["user", "assistant"]]
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(6000)]

    def text(least: int, most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(least, most)))

    said = [(text(5, 30), text(10, 90)) for _ in range(3000)]
    return [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in said]


def made_model(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A folder that both can load. The tokenizer may come out smaller than the table; the table has its size."""
    tokenizer = train_tokenizer((m["content"] for row in rows for m in row["messages"]), VOCABULARY)
    torch.manual_seed(0)
    shape = {"layers": 6, "width": 384, "heads": 6, "kv_heads": 6, "head_dim": 64, "mlp_width": 1024}
    model = Transformer(ModelConfig(VOCABULARY, context=CONTEXT, tie_embeddings=True, **shape))
    save_model(path, model, tokenizer)
    print(f"{model.config.parameters() / 1e6:.1f} M parameters, {len(rows):,} conversations")
    return path


def ours(folder: Path, model: Path, rows: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """By the stage itself, from its step log."""
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"steps": given.steps, "precision": given.precision, "compile": given.compile, "save_minutes": 60}
    config = SftConfig.model_validate(
        {
            "model": str(model), "conversations": [str(path)], "heldout_share": 0, "eval_items": 0, "eval_every": 0,
            "batch_tokens": ROWS * CONTEXT, "rows_at_once": ROWS,
            "train": {**train, "optimizer": {"name": "adamw", "lr": 1e-4}, "schedule": {"warmup": 0, "cooldown": 0}},
        }
    )  # fmt: skip
    log = [row for row in run(config, Workspace(folder / "w"), Console(quiet=True)).metrics() if "loss" in row]
    counts = [b["tokens"] - a["tokens"] for a, b in zip([{"tokens": 0}, *log], log, strict=False)]
    times = [count / row["tokens_per_s"] for count, row in zip(counts, log, strict=True)]
    return measured(times, counts, [row["loss"] for row in log])


def theirs(folder: Path, model: Path, rows: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """By SFTTrainer, its steps timed from outside."""
    import trl
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    disable_progress_bars()
    times: list[float] = []
    counts: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **more: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *args: Any, **more: Any) -> None:
            times.append(time.perf_counter() - self.begun)

    class Counting(trl.SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **more: Any) -> Any:
            mask = inputs.get("attention_mask")
            counts.append(int(inputs["input_ids"].numel() if mask is None else mask.sum()))
            return super().compute_loss(model, inputs, *args, **more)

    pairs = [{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in rows]
    trainer = Counting(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=Dataset.from_list(pairs),
        args=trl.SFTConfig(
            output_dir=str(folder / "trl"), max_length=CONTEXT, packing=True, per_device_train_batch_size=ROWS,
            max_steps=given.steps, learning_rate=1e-4, lr_scheduler_type="constant", bf16=given.precision == "bf16",
            use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False, report_to="none", save_strategy="no",
            logging_steps=1, disable_tqdm=True,
        ),
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {**measured(times, counts, losses), "version": trl.__version__}


def measured(times: list[float], counts: list[int], losses: list[float]) -> dict[str, Any]:
    """Tokens a second from the steps behind the first ones."""
    seconds, tokens = statistics.median(times[WARM:]), statistics.mean(counts[WARM:])
    spread = (min(times[WARM:]), max(times[WARM:]))
    return {"tokens_per_s": tokens / seconds, "tokens": tokens, "seconds": spread, "losses": losses[:3]}


def report(found: dict[str, dict[str, Any]], given: argparse.Namespace) -> None:
    rows = []
    for name, one in found.items():
        low, high = one["seconds"]
        losses = " ".join(f"{loss:.3f}" for loss in one["losses"])
        version = f" {one['version']}" if "version" in one else ""
        rows.append(
            (name + version, f"{one['tokens_per_s']:,.0f}", f"{one['tokens']:,.0f}", f"{low:.2f}-{high:.2f}", losses)
        )
    columns = ("", "tokens/s", "tokens a step", "seconds a step", "first losses")
    Console().table(f"sft in {given.precision}, {given.threads} threads", columns, rows)
    if len(found) == 2:
        print(f"llmctl / TRL: {found['llmctl']['tokens_per_s'] / found['TRL']['tokens_per_s']:.1f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
