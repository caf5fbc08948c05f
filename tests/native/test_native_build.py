"""How kernels are built, and what happens where they cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from llmctl.native import build

_CODE = """
import torch
from llmctl.model.config import dial
from llmctl.model.transformer import Transformer
from llmctl.native import build
from llmctl.train.batch import Batch
from llmctl.train.loss import lm_loss
torch.manual_seed(0)
model = Transformer(dial(2, 300, 64, width=128))
ids = torch.randint(300, (2, 64))
with torch.autocast("cpu", dtype=torch.bfloat16):
    loss = lm_loss(model, Batch(ids, ids, torch.ones(2, 64)))
loss.total.backward()
print(build.why_not(), float(loss.total), float(model.layers[1].mlp.up_proj.weight.grad.norm() + 1))
"""


def _said(**environment: str) -> list[str]:
    import os

    done = subprocess.run(
        [sys.executable, "-c", _CODE], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.rsplit(maxsplit=2)


def test_without_kernels_the_numbers_are_the_same_up_to_rounding(tmp_path):
    on, off = _said(XDG_CACHE_HOME=str(tmp_path)), _said(LLMCTL_NATIVE="0")
    assert off[0] == "LLMCTL_NATIVE=0"
    assert [float(x) for x in on[1:]] == pytest.approx([float(x) for x in off[1:]], rel=1e-2)


def test_no_compiler_is_no_mistake(tmp_path):
    (tmp_path / "empty").mkdir()
    said = _said(PATH=str(tmp_path / "empty"), XDG_CACHE_HOME=str(tmp_path), CXX="")
    assert said[0] != "None"


@pytest.mark.skipif(build.why_not() is not None, reason="no compiler or no AMX: the kernels are off")
class TestBuilding:
    def test_a_kernel_is_compiled_once_and_again_when_its_source_changes(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(build, "_HERE", tmp_path)
        source = tmp_path / "one.cpp"
        source.write_text('extern "C" int one() { return 1; }')
        first = build._compiled("one")
        changed = first.stat().st_mtime_ns
        assert build._compiled("one") == first
        assert first.stat().st_mtime_ns == changed
        source.write_text('extern "C" int one() { return 2; }')
        assert build._compiled("one") != first
        assert [p for p in first.parent.iterdir() if p.is_dir()] == [], "nothing half made stays"

    def test_what_does_not_compile_is_off_and_says_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(build, "_HERE", tmp_path)
        (tmp_path / "bad.cpp").write_text("this is not C++")
        assert build.library.__wrapped__("bad") is None

    def test_a_home_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert build.library.__wrapped__("head") is None

    def test_the_tile_registers_of_onednn_are_left_as_they_were(self):
        a, b = torch.randn(256, 256).bfloat16(), torch.randn(256, 256).bfloat16()
        before = a @ b
        from llmctl.native.gradient import matrix_gradient

        matrix_gradient(a, b)
        assert torch.equal(a @ b, before)


class TestWhatNeedsNoProcessor:
    """Kernels in standard C++: any processor will do."""

    def test_only_the_compiler_is_asked_for(self, monkeypatch):
        why_not = build.why_not.__wrapped__
        monkeypatch.delenv("LLMCTL_NATIVE", raising=False)
        monkeypatch.setattr(build, "_processor", set)
        monkeypatch.setattr(build, "compiler", lambda: "/usr/bin/g++")
        assert "AMX" in why_not() and why_not("head") == why_not() and why_not("bpe") is None
        monkeypatch.setattr(build, "compiler", lambda: None)
        assert "compiler" in why_not("bpe")
        monkeypatch.setenv("LLMCTL_NATIVE", "0")
        assert why_not("bpe") == why_not() == "LLMCTL_NATIVE=0"

    @pytest.mark.skipif(build.why_not("bpe") is not None, reason="no compiler, or the kernels are off")
    def test_it_is_made_once_it_is_asked_for(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert not build.is_made("bpe")
        assert build.library.__wrapped__("bpe") is not None and build.is_made("bpe")

    def test_without_a_compiler_it_is_not_made(self, monkeypatch):
        monkeypatch.setattr(build, "why_not", lambda name: "they need a C++ compiler")
        assert not build.is_made("bpe")
