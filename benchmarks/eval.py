"""Tasks on our engine beside lm-evaluation-harness's own `hf` model: the same weights, task files, CPU and batch.

    python benchmarks/eval.py --lm-eval SITE_PACKAGES --data FOLDER [--model FOLDER] [--items 100] [--threads 1]

SITE_PACKAGES is where `lm_eval` and `accelerate` are installed (pip install --target SITE_PACKAGES lm_eval accelerate);
FOLDER holds `eval/*.jsonl.gz`. `--precision auto` is our default, bf16 where the CPU is faster in it; theirs takes the
weights' own, float32. Both sides get prompts as text and give likelihoods or replies; reading data, loading
weights and drawing examples are not timed. CPU seconds are counted, so other processes hardly matter. Without a model,
one of GPT-2's shape (124 million weights, random) is made.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ARC = 'output_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: gold\ndoc_to_text: "{{query}}\\nAnswer:"\n'
TASKS = {
    "four choices, no examples": (
        "arc_easy",
        _ARC,
    ),
    "four choices, 5 examples": (
        "arc_easy",
        _ARC + "fewshot_split: test\nnum_fewshot: 5\n",
    ),
    "four endings of a sentence": (
        "hellaswag_val_1000",
        "output_type: multiple_choice\ndoc_to_text: ctx\ndoc_to_choice: endings\ndoc_to_target: label\n",
    ),
    "four letters, the same 5 examples": (
        "mmlu_test_quarter",
        'output_type: multiple_choice\ndoc_to_text: "{{question}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. '
        '{{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"\ndoc_to_choice: [A, B, C, D]\ndoc_to_target: "{{answer}}"\n'
        "fewshot_split: test\nnum_fewshot: 5\nfewshot_config: {sampler: first_n}\n",
    ),
    "the last word": (
        "lambada",
        'output_type: loglikelihood\ndoc_to_text: "{{context}}"\ndoc_to_target: " {{continuation|trim}}"\n',
    ),
}


class Bar:
    """No progress is shown."""

    def advance(self, n: int) -> None:
        pass


def main() -> None:
    args = _arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    sys.path.append(str(args.lm_eval))
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        model = args.model or _gpt2(Path(scratch) / "model", args.data)
        ours, theirs = _ours(model, args.precision), _theirs(model, args.batch)
        print(f"{'task':36} {'items':>6} {'ours/s':>8} {'theirs/s':>9} {'times':>6}  largest difference of a score")
        for title, (data, text) in TASKS.items():
            path = Path(scratch) / f"{title.replace(' ', '_').replace(',', '')}.yaml"
            files = next(iter(sorted((args.data / "eval").glob(f"{data}.jsonl*"))))
            head = f"task: {path.stem}\ndataset_path: json\ntest_split: test\n"
            path.write_text(head + f"dataset_kwargs: {{data_files: {{test: {files}}}}}\n" + text)
            seconds, scores = ours(path, args.items)
            other, expected = theirs(path, args.items)
            gap = max(abs(scores[k] - v) for k, v in expected.items() if k in scores)
            rates = args.items / seconds, args.items / other
            print(
                f"{title:36} {args.items:6} {rates[0]:8.2f} {rates[1]:9.2f} {other / seconds:6.2f}  {gap:.1e}",
                flush=True,
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm-eval", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "auto", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _gpt2(folder: Path, data: Path) -> Path:
    """A model of GPT-2's size with random weights: the arithmetic is the same."""
    import torch

    from llmctl.model.config import ModelConfig
    from llmctl.model.folder import save_model
    from llmctl.model.tokenizer import Tokenizer
    from llmctl.model.transformer import Transformer

    tokenizer = Tokenizer.load(next(data.rglob("vocab.bpe")).parent)
    torch.manual_seed(0)
    shape = ModelConfig(tokenizer.vocab_size, 12, 768, 12, 12, 64, 2048, 1024, family="llama")
    model = Transformer(shape)
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, 0, 0.02)
    save_model(folder, model, tokenizer)
    return folder


def _ours(folder: Path, precision: str) -> Any:
    from llmctl.eval.config import EvalConfig
    from llmctl.eval.task_run import ask_task, prepare
    from llmctl.eval.task_scores import task_scores
    from llmctl.generate.engine import Engine
    from llmctl.model.folder import load_model

    engine = Engine(*load_model(folder), precision=precision)

    def measure(path: Path, items: int) -> tuple[float, dict[str, float]]:
        config = EvalConfig(models=["m"], limit=items, precision="fp32")
        prepared = prepare(str(path), config)
        with tempfile.TemporaryDirectory() as kept:
            start = time.process_time()
            rows = ask_task(lambda: engine, prepared, None, config, Path(kept), Bar())  # type: ignore[arg-type]
            seconds = time.process_time() - start
        scores = task_scores("m", prepared.task, [r["metrics"] for r in rows], 0)
        return seconds, {s["metric"]: s["value"] for s in scores if s["metric"] != "perplexity"}

    return measure


def _theirs(folder: Path, batch: int) -> Any:
    import lm_eval  # type: ignore[import-not-found]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

    context = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch, max_length=context)
    spent = [0.0]
    real = model.loglikelihood

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return real(*args, **kwargs)
        finally:
            spent[0] += time.process_time() - start

    model.loglikelihood = timed

    def measure(path: Path, items: int) -> tuple[float, dict[str, float]]:
        spent[0] = 0.0
        with contextlib.redirect_stderr(io.StringIO()):
            found = lm_eval.simple_evaluate(model=model, tasks=[str(path)], limit=items, bootstrap_iters=0)
        values = found["results"][path.stem]
        plain = {k.partition(",")[0]: v for k, v in values.items() if k.endswith(",none")}
        return spent[0], {k: float(v) for k, v in plain.items() if not k.endswith("_stderr")}

    return measure


if __name__ == "__main__":
    main()
