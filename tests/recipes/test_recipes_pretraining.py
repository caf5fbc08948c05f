"""The recipes that train base models, on a little text and for two updates, with everything else as it is shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small import flags

from llmctl.model.folder import load_model
from llmctl.workspace import Workspace

pytestmark = pytest.mark.slow
TINY = [
    "pretrain.depth=1", "pretrain.context=64", "pretrain.batch_tokens=256", "pretrain.train.steps=2",
    "pretrain.eval_tokens=1000", "pretrain.samples.new_tokens=2", "pretrain.model.width=64",
]  # fmt: skip
FAMILIES = {"gpt2-124m": "gpt2", "gpt2-1.6b": "gpt2", "depth-12": "qwen3", "novels": "qwen3"}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains(name: str, data: Path, tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text((data / "text/tinyshakespeare.txt").read_text()[:60_000])
    own = [f"tokenize.corpus={text}"]
    own.append(f"tokenize.tokenizer={data / 'tokenizers/gpt2'}" if "gpt2" in name else "tokenize.vocab_size=512")
    ran = [sys.executable, "-m", "llmctl", "run", name, "-w", str(tmp_path / "w"), *flags([*own, *TINY])]
    done = subprocess.run(ran, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = load_model(Workspace(tmp_path / "w").find(f"model/{name}").path)[0]
    assert model.config.family == FAMILIES[name]


def test_gpt2_as_shipped_is_gpt2(data: Path, tmp_path: Path) -> None:
    """The plan of the whole recipe: GPT-2's parameters, and the tokens of the published run."""
    text = tmp_path / "book.txt"
    text.write_text((data / "text/tinyshakespeare.txt").read_text()[:60_000])
    where = ["-w", str(tmp_path / "w")]
    llmctl = [sys.executable, "-m", "llmctl"]
    gpt2 = str(data / "tokenizers/gpt2")
    made = [*llmctl, "tokenize", str(text), "-o", "fineweb-10b", *where, *flags([f"tokenizer={gpt2}"])]
    subprocess.run(made, check=True, capture_output=True)
    plan = [*llmctl, "pretrain", "-r", "gpt2-124m", *where, "--dry-run", "--json"]
    done = subprocess.run(plan, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["plan"]
    # 124,439,808 with 50,257 tokens; nine chat tokens more of 768 weights each.
    assert found["parameters"].startswith(f"{124_439_808 + 9 * 768:,} ")
    assert found["updates"] == "19,560" and found["batch"].startswith("524,288 tokens (512 rows of 1024)")
    assert found["tokens"] == f"{19_560 * 524_288:,}"
