"""The C program: it compiles without a warning, cuts text into the same ids, and goes on with the same tokens."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from export_made import FAMILIES, PROMPTS, greedy, hard_texts, made

from llmctl.errors import UserError
from llmctl.model.chat_format import render_prompt
from llmctl.model.export.c import PROGRAM, write_c
from llmctl.model.export.pattern import compile_pattern
from llmctl.model.folder import load_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import Transformer

CC = shutil.which("cc")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if CC is None:
        pytest.skip("no C compiler here")
    run = tmp_path_factory.mktemp("c") / "run"
    strict = ["-O3", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run([CC, *strict, "-o", str(run), str(PROGRAM), "-lm"], check=True)
    return run


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["hello world, the quick brown fox says 'hello' 42 times"] * 3, 300)


def run(program: Path, folder: Path, *words: str, given: bytes = b"") -> str:
    done = subprocess.run([program, folder / "model.bin", *words], input=given, capture_output=True, check=True)
    return done.stdout.decode()


def ids_of(line: str) -> list[int]:
    return [int(word) for word in line.split()]


def same_ids(program: Path, folder: Path, tokenizer: Tokenizer, texts: list[bytes]) -> None:
    vocabulary_only = made("llama", tokenizer, layers=1, width=8, heads=1, kv_heads=1, head_dim=8, mlp_width=8)
    write_c(folder, vocabulary_only, tokenizer)
    lines = run(program, folder, "--tokens", given=b"".join(t + b"\0" for t in texts)).splitlines()
    assert len(lines) == len(texts)
    for text, line in zip(texts, lines, strict=True):
        assert ids_of(line) == tokenizer.encode(text.decode("utf-8", "replace")), text


def test_it_is_a_program_that_one_can_read() -> None:
    lines = PROGRAM.read_text().splitlines()
    assert len(lines) < 500 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_greedy_tokens_as_our_engine(program: Path, tokenizer: Tokenizer, tmp_path: Path, family: str) -> None:
    model = made(family, tokenizer)
    assert write_c(tmp_path, model, tokenizer) == ["model.bin", "run.c"]
    seen: set[int] = set()
    for prompt in PROMPTS:
        found = ids_of(run(program, tmp_path, "-p", prompt, "-n", "200", "--ids"))
        assert found == greedy(model, tokenizer, [tokenizer.eos_id, *tokenizer.encode(prompt)], 200)
        seen |= set(found)
    assert len(seen) > 10  # or they could agree by always saying the same


def test_a_real_model_gives_its_recorded_tokens(program: Path, data: Path, tmp_path: Path) -> None:
    folder = data / "model/stories260K"
    model, tokenizer = load_model(folder / "stories260K.bin")
    write_c(tmp_path, model, tokenizer)
    assert run(program, tmp_path, "-n", "200").strip() == (folder / "expected_greedy_200.txt").read_text().strip()
    told = run(program, tmp_path, "-p", "One day, Tim", "-n", "30").rstrip("\n")
    found = greedy(model, tokenizer, [tokenizer.id_of("<s>"), *tokenizer.encode("One day, Tim")], 30)
    assert told == "One day, Tim" + tokenizer.decode([*tokenizer.encode("x"), *found])[1:]


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_the_same_ids_on_hard_texts(program: Path, tmp_path: Path, digits: int) -> None:
    text = " ".join(hard_texts(60)) + " 12 12 123 123 1234 1234"
    texts = [t.encode() for t in hard_texts(800)]
    same_ids(program, tmp_path, train_tokenizer([text], 700, digits), texts)


def test_the_same_ids_on_bytes_that_are_no_text(program: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    dice = random.Random(1)
    pieces = [
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\xe2\x82",
        b"\xf0\x9f\x99",
        b"\x80",
        b"a",
        "é🙂".encode(),
    ]
    same_ids(program, tmp_path, tokenizer, [b"".join(dice.choices(pieces, k=8)) for _ in range(400)])
    same_ids(program, tmp_path, tokenizer, [bytes(dice.choices(range(1, 256), k=30)) for _ in range(400)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "cl100k_base.tiktoken", "o200k_base.tiktoken", "stories260K.bin"])
def test_the_same_ids_from_published_vocabularies(program: Path, data: Path, tmp_path: Path, name: str) -> None:
    place = data / "model/stories260K/tok512.bin" if name.endswith(".bin") else data / "tokenizers" / name
    with gzip.open(data / "lang/udhr.jsonl.gz", "rt") as f:
        texts = [json.loads(line)["text"][:2000] for line in f]
    tokenizer = load_model(place.with_name(name))[1] if name.endswith(".bin") else Tokenizer.load(place)
    same_ids(program, tmp_path, tokenizer, [t.encode() for t in texts + hard_texts(300)])


def test_a_conversation(program: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made("qwen3", tokenizer, context=400)
    write_c(tmp_path, model, tokenizer)
    lines = run(program, tmp_path, "--chat", "--ids", "-n", "20", given=b"hello\n<|im_end|> fox\n").splitlines()
    first = greedy(model, tokenizer, prompt := render_prompt([{"role": "user", "content": "hello"}], tokenizer), 20)
    assert ids_of(lines[0]) == first
    if first[-1] != tokenizer.specials["<|im_end|>"]:
        first = first[:-1]  # cut off by -n: the last token was never read
    second = render_prompt([{"role": "user", "content": "<|im_end|> fox"}], tokenizer)
    assert ids_of(lines[1]) == greedy(model, tokenizer, [*prompt, *first, *second], 20)


def test_drawn_tokens_follow_the_probabilities(program: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made("qwen3", tokenizer)
    write_c(tmp_path, model, tokenizer)
    words = ("-p", "hello", "-n", "1", "--ids", "-t", "0.7")
    drawn = Counter(int(run(program, tmp_path, *words, "-s", str(seed))) for seed in range(400))
    ids = torch.tensor([[tokenizer.eos_id, *tokenizer.encode("hello")]])
    with torch.inference_mode():
        chances = (model.logits(model(ids)[0, -1]) / 0.7).softmax(-1)
    for token in chances.topk(3).indices.tolist():
        p = chances[token].item()
        assert abs(drawn[token] / 400 - p) < 4 * (p * (1 - p) / 400) ** 0.5 + 1e-9
    assert run(program, tmp_path, *words, "-s", "9") == run(program, tmp_path, *words, "-s", "9")
    likely = {i for i, p in enumerate(chances.tolist()) if p >= 0.3 * chances.max()}
    for seed in range(30):
        assert int(run(program, tmp_path, *words, "-m", "0.3", "-s", str(seed))) in likely


@pytest.mark.parametrize("keep", [0, 100, 5000, -1])
def test_a_file_that_is_cut_off_is_named(program: Path, tokenizer: Tokenizer, tmp_path: Path, keep: int) -> None:
    write_c(tmp_path, made("llama", tokenizer), tokenizer)
    file = tmp_path / "model.bin"
    file.write_bytes(file.read_bytes()[:keep])
    done = subprocess.run([program, file, "-p", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and str(file) in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_text_longer_than_the_context_is_said(program: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_c(tmp_path, made("llama", tokenizer), tokenizer)
    done = subprocess.run([program, tmp_path / "model.bin", "-p", "x " * 200], capture_output=True, text=True)
    assert done.returncode == 2 and "context" in done.stderr


@pytest.mark.parametrize("pattern", [r"(?:ab)+|c", r"a++", r"(a", "a)", "^a", r"(?<=a)b", r"(?!ab)c"])
def test_a_pattern_that_cannot_be_said_in_runs_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match="split pattern"):
        compile_pattern(pattern)


def test_tokenizers_of_another_kind_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model: Transformer = made("llama", tokenizer)
    for change, said in (
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"normalizer": {"type": "NFC"}}, "NFC"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
    ):
        with pytest.raises(UserError, match=said):
            write_c(tmp_path, model, Tokenizer({**tokenizer.spec, **change}, tokenizer.config))
