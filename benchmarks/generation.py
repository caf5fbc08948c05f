"""Generation by our engine beside transformers' `generate`, with the same weights, prompts and lengths, in one run.

    python benchmarks/generation.py [--rows 64] [--new 128]

A model of about 20 million parameters with random weights (width 384, 8 layers, vocabulary 8,192), prompts of 32 to 64
tokens, up to `--new` tokens sampled behind each at temperature 1 (ours end at the end of a text, which random weights
hardly find; what was made is counted); then one row alone. Tokens a second on
the clock, the better of two runs after one to warm up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.config import dial
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.model.transformer import Transformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--new", type=int, default=128)
    given = parser.parse_args()
    torch.manual_seed(0)
    shape = dial(8, 8192, 512, width=384)
    model = Transformer(shape).eval()
    with torch.no_grad():
        for p in model.parameters():  # the zeros that training begins with would make every step cheap to predict
            p.add_(torch.randn_like(p) * 0.02)
    tokenizer = train_tokenizer(iter(["a few words to begin with"]), 300)
    prompts = [torch.randint(300, 8000, (32 + i % 33,)).tolist() for i in range(given.rows)]
    print(f"{shape.parameters() / 1e6:.1f} M parameters, {given.new} new tokens behind prompts of 32 to 64")
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), model, tokenizer)
        for name, rows in (("batched", given.rows), ("one row", 1)):
            some = prompts[:rows]
            for kind in ("fp32", "bf16"):
                theirs = rate(transformers_run(folder, kind, some, given.new))
                ours = rate(our_run(model, tokenizer, kind, some, given.new))
                both = f"transformers {theirs:>7,.0f}  llmctl {ours:>7,.0f} tokens/s"
                print(f"  {name:<8} {kind}  {both}  {ours / theirs:.1f} x")


def our_run(model: Transformer, tokenizer: object, kind: str, prompts: list[list[int]], new: int) -> Callable[[], int]:
    engine = Engine(model, tokenizer, kind)  # type: ignore[arg-type]

    def run() -> int:
        made = engine.generate(prompts, Sampling(max_new_tokens=new, temperature=1.0))
        return sum(len(samples[0].ids) for samples in made)

    return run


def transformers_run(folder: str, kind: str, prompts: list[list[int]], new: int) -> Callable[[], int]:
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])

    def run() -> int:
        with torch.inference_mode():
            made = model.generate(
                ids, attention_mask=mask, do_sample=True, max_new_tokens=new, min_new_tokens=new, pad_token_id=0,
                top_k=0, eos_token_id=-1,
            )  # fmt: skip
        return (made.shape[1] - longest) * len(prompts)

    return run


def rate(run: Callable[[], int]) -> float:
    """Tokens a second, the better of two runs after one."""
    run()
    best = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        made = run()
        best = max(best, made / (time.perf_counter() - begun))
    return best


if __name__ == "__main__":
    main()
