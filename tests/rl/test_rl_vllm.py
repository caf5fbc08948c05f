"""Roll-outs by vLLM, against a stand-in with vLLM's interface: it cannot be installed everywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_vllm
import pytest
import torch
from rl_tiny import save_tiny, tiny_config

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Engine, Sampling
from llmctl.model.folder import load_model
from llmctl.rl.stage import run
from llmctl.rl.vllm_engine import VllmEngine
from llmctl.workspace import Workspace

REWARD = "def letters(row):\n    return sum(c.islower() for c in row['reply'])\n"


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[fake_vllm.LLM]:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    monkeypatch.setattr(fake_vllm.LLM, "made", [])
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # taken back at the end
    return fake_vllm.LLM


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_vllm.py").write_text(REWARD)
    return save_tiny(tmp_path / "tiny")


def engine(folder: Path) -> VllmEngine:
    return VllmEngine(*load_model(folder), "fp32", 0.3)


def test_a_run_learns_and_its_sampler_keeps_up_with_the_trainer(
    vllm: type[fake_vllm.LLM], folder: Path, workspace: Workspace, console: Console
) -> None:
    config = tiny_config(
        folder, function="mine_vllm:letters", rewards={"accuracy": 0, "format": 0}, guard={"every": 0}, eval_items=1,
        rollouts={"prompts": 2, "group": 8, "max_new_tokens": 5, "engine": "vllm", "temperature": 0.8},
        train={"steps": 8, "precision": "fp32", "optimizer": {"lr": 1e-2}}, method={"sampler_cap": 2},
    )  # fmt: skip
    rows = run(config, workspace, console).metrics()
    gaps, rewards = ([r[name] for r in rows if name in r] for name in ("sampler_gap", "reward"))
    # Weights that were not handed over, or log-probabilities at another temperature, would be far off.
    assert len(gaps) == 8 and max(gaps) < 1e-4
    assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])
    assert len(vllm.made) == 1 and vllm.made[0].resets >= 8


def test_samples_are_what_our_engine_would_say_of_them(vllm: type[fake_vllm.LLM], folder: Path) -> None:
    made = engine(folder)
    prompts = [made.tokenizer.encode(t) for t in ("What is 12", "Compute")]
    found = made.generate(prompts, Sampling(max_new_tokens=6, temperature=0.7, seed=5), n=3)
    own = Engine(made.model, made.tokenizer, "fp32")
    assert [len(g) for g in found] == [3, 3]
    for prompt, group in zip(prompts, found, strict=True):
        for s in group:
            assert s.logprobs == pytest.approx(own.score([prompt], [s.ids], 0.7)[0], abs=1e-4)
            assert len(s.ids) == 6 or s.finish == "stop"
    assert len({tuple(s.ids) for g in found for s in g}) == 6, "every reply has a noise of its own"
    greedy = Sampling(max_new_tokens=8, temperature=0)
    for theirs, ours in zip(made.generate(prompts, greedy), own.generate(prompts, greedy), strict=True):
        assert (theirs[0].ids, theirs[0].text, theirs[0].finish) == (ours[0].ids, ours[0].text, ours[0].finish)


def test_a_process_with_a_part_of_the_prompts_draws_what_one_with_all_does(
    vllm: type[fake_vllm.LLM], folder: Path
) -> None:
    made = engine(folder)
    prompts = [made.tokenizer.encode(t) for t in ("What is 12", "Compute", "How much")]
    whole = made.generate(prompts, Sampling(max_new_tokens=6, seed=3), n=2)
    part = made.generate(prompts[1:], Sampling(max_new_tokens=6, seed=3, first=1), n=2)
    assert [[s.ids for s in g] for g in part] == [[s.ids for s in g] for g in whole[1:]]
    assert made.generate([], Sampling(max_new_tokens=6)) == []


def test_what_ends_a_reply_ends_it_as_with_our_engine(vllm: type[fake_vllm.LLM], folder: Path) -> None:
    made = engine(folder)
    own = Engine(made.model, made.tokenizer, "fp32")
    prompt = made.tokenizer.encode("What is 12 + 34?")
    free = own.generate([prompt], Sampling(max_new_tokens=8, temperature=0, stop_ids=()))[0][0]
    by_token = Sampling(max_new_tokens=8, temperature=0, stop_ids=(free.ids[2],))
    by_text = Sampling(max_new_tokens=8, temperature=0, stop_strings=(made.tokenizer.decode([free.ids[1]]),))
    for how in (by_token, by_text):
        theirs, ours = made.generate([prompt], how)[0][0], own.generate([prompt], how)[0][0]
        assert (theirs.ids, theirs.text, theirs.finish) == (ours.ids, ours.text, ours.finish)
        assert theirs.finish == "stop" and len(theirs.ids) <= 3
    full = [1] * made.model.config.context
    assert made.generate([full], Sampling())[0][0].finish == "length"
    assert len(made.generate([full[:-2]], Sampling(max_new_tokens=9, stop_ids=()))[0][0].ids) == 2


def test_tools_are_run_inside_and_their_words_are_not_the_models(
    vllm: type[fake_vllm.LLM], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(folder)
    special = made.tokenizer.specials
    call = [special["<|python_start|>"], *made.tokenizer.encode("6 * 7"), special["<|python_end|>"]]
    end = made.tokenizer.eos_id
    script = {0: call, 1: [*made.tokenizer.encode("It is 42."), end]}
    asked: list[tuple[str, str]] = []

    def tool(name: str, text: str) -> str:
        asked.append((name, text))
        return "42"

    def scores(self: fake_vllm.LLM, ids: list[int], temperature: float) -> torch.Tensor:
        """The call, then (after the result) the answer, whatever the model would say."""
        reply = ids[len(prompt) :]
        at = len(reply) if len(reply) < len(call) else len(reply) - len(call) - len(result)
        wanted = script[0 if len(reply) < len(call) else 1][at]
        return torch.log_softmax(
            torch.full((made.tokenizer.vocab_size,), 0.0).index_fill(0, torch.tensor(wanted), 9), 0
        )

    prompt = made.tokenizer.encode("What is 6 * 7?")
    result = [special["<|output_start|>"], *made.tokenizer.encode("42"), special["<|output_end|>"]]
    monkeypatch.setattr(fake_vllm.LLM, "scores", scores)
    found = made.generate([prompt], Sampling(max_new_tokens=60, temperature=0, stop_ids=(end,)), 1, tool)[0][0]
    assert asked == [("python", "6 * 7")]
    assert found.ids == [*call, *result, *script[1]] and found.finish == "stop"
    assert [i for i, f in zip(found.ids, found.forced, strict=True) if f] == result
    assert all((p == 0) == f for p, f in zip(found.logprobs, found.forced, strict=True))
    cut = made.generate([prompt], Sampling(max_new_tokens=len(call) + 1, temperature=0), 1, tool)[0][0]
    assert len(cut.ids) == len(call) + 1 and cut.finish == "length" and cut.forced[-1]


def test_without_vllm_it_says_what_to_install(
    folder: Path, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with pytest.raises(UserError, match=r"(?s)rollouts.engine: vLLM is not installed.*pip install"):
        run(tiny_config(folder, rollouts={"engine": "vllm"}), workspace, console)


def test_several_processes_have_an_engine_each(
    vllm: type[fake_vllm.LLM], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    engine(folder)
    assert [m.settings["backend"] for m in vllm.made] == [None, "external_launcher"]
