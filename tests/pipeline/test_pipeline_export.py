"""`llmctl export`: whole or not at all, in every format, from the workspace and from outside."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.config import ModelConfig
from llmctl.model.export import c as c_format
from llmctl.model.folder import load_model, save_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.pipeline.export import export_model
from llmctl.workspace import Workspace


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The path of a small model folder."""
    tokenizer = train_tokenizer(["a small text"], 280)
    torch.manual_seed(0)
    shape = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "mlp_width": 32, "context": 64}
    save_model(tmp_path / "m", Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)), tokenizer)
    reward = RewardModel(Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **shape)))
    save_model(tmp_path / "reward", reward, tokenizer)
    return str(tmp_path / "m")


def test_every_format_names_what_it_made(workspace: Workspace, model: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    wanted = {"c": ["model.bin", "run.c"], "gguf": ["m-f16.gguf"]}
    for format, files in wanted.items():
        made = export_model(workspace, model, tmp_path / format, format)
        assert made.files == files == sorted(p.name for p in made.folder.iterdir())
    made = export_model(workspace, model, tmp_path / "hf", "hf")
    assert "model.safetensors" in made.files and load_model(made.folder)[0].config == load_model(model)[0].config
    assert export_model(workspace, model, tmp_path / "q", "gguf", "q8_0").files == ["m-q8_0.gguf"]


def test_nothing_is_written_over_and_nothing_is_left_of_a_failure(
    workspace: Workspace, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        export_model(workspace, model, tmp_path / "there", "c")

    def fails(folder: Path, *_: object) -> None:
        (folder / "model.bin").write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(c_format, "write_c", fails)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="no space"):
        export_model(workspace, model, tmp_path / "new", "c")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("format", "type", "said"),
    [("gufg", None, "did you mean 'gguf'"), ("gguf", "q8", "did you mean 'q8_0'"), ("c", "f16", "goes with")],
)
def test_mistakes_are_named(
    workspace: Workspace, model: str, tmp_path: Path, format: str, type: str | None, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        export_model(workspace, model, tmp_path / "new", format, type)


@pytest.mark.parametrize("format", ["gguf", "c"])
def test_a_reward_model_is_refused(workspace: Workspace, model: str, tmp_path: Path, format: str) -> None:
    with pytest.raises(UserError, match="reward model"):
        export_model(workspace, model.replace("/m", "/reward"), tmp_path / "new", format)
    assert not (tmp_path / "new").exists()


def test_a_real_model_from_llama2c_keeps_its_tokens_in_every_format(
    workspace: Workspace, data: Path, tmp_path: Path
) -> None:
    source = data / "model/stories260K"
    recorded = (source / "expected_greedy_200.txt").read_text().strip()
    export_model(workspace, str(source / "stories260K.bin"), tmp_path / "hf", "hf")
    model, tokenizer = load_model(tmp_path / "hf")
    ids = Engine(model, tokenizer, "fp32").generate(
        [[tokenizer.id_of("<s>")]], Sampling(max_new_tokens=200, temperature=0.0)
    )
    assert tokenizer.decode(ids[0][0].ids).strip() == recorded
    if cc := shutil.which("cc"):
        made = export_model(workspace, str(tmp_path / "hf"), tmp_path / "c", "c")
        subprocess.run([cc, "-O3", "-o", "run", "run.c", "-lm"], cwd=made.folder, check=True)
        told = subprocess.run(["./run", "model.bin", "-n", "200"], cwd=made.folder, capture_output=True, text=True)
        assert told.stdout.strip() == recorded


@pytest.mark.slow
def test_the_command_says_what_it_made(model: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "llmctl.cli.main", "export", model, str(tmp_path / "out"), "--format", "c", "--json"]
    done = subprocess.run(words, text=True, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == ["model.bin", "run.c"] and "cc -O3" in done.stderr
    again = subprocess.run(words, text=True, capture_output=True, cwd=tmp_path)
    assert again.returncode == 2 and "exists already" in again.stderr
