"""The tokenizer: exact both ways on any text, blind to special tokens in it, and the ids that the originals give."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.model.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

TEXT = (
    "The quick brown fox's 1234567 jumps, over 3.14159 lazy dogs!\n\n  def f(x):\n\treturn x**2  # naïve\n"
    "Zwölf Boxkämpfer jagen Viktor. Съешь же ещё этих мягких булок. 我能吞下玻璃而不伤身体。 🙂👩‍👩‍👧\r\n"
)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer([TEXT * 3, "the the fox jumps over"], 400)


def multilingual(data: Path) -> list[str]:
    with gzip.open(data / "lang/udhr.jsonl.gz", "rt", encoding="utf-8", newline="\n") as f:
        return [max((v for v in json.loads(line).values() if isinstance(v, str)), key=len) for line in f]


def noise(count: int) -> list[str]:
    """Runs of random code points and of what split patterns trip over."""
    chance = random.Random(0)
    pool = [*" \t\n\r\u00a0\u3000\u0085'sSTſtdlLrReVE", *"1٣½90,.!?/-_éÉǅʰ一กßﬆ", "\u0301", "🙂", "\u200d"]
    points = [*range(0x20, 0x800), *range(0x2000, 0x2100), *range(0xFE00, 0x11000), *range(0x1F300, 0x1F700)]
    found = ["".join(chance.choices(pool, k=chance.randrange(1, 25))) for _ in range(count)]
    found += ["".join(map(chr, chance.choices(points, k=30))) for _ in range(count)]
    return found + [bytes(chance.choices(range(256), k=60)).decode("utf-8", "replace") for _ in range(count)]


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(small: Tokenizer, text: str) -> None:
    assert small.decode(small.encode(text)) == text


def test_a_lone_surrogate_is_encoded_as_what_it_is_not(small: Tokenizer) -> None:
    assert small.decode(small.encode("a\ud83db")) == "a\ufffdb"
    assert small.encode_batch(["a\ud83db"]) == [small.encode("a\ud83db")]
    assert small.encode("\ud83d\ude42") == small.encode("🙂")


def test_multilingual_text_comes_back(small: Tokenizer, data: Path) -> None:
    texts = multilingual(data)
    assert [small.decode(i) for i in small.encode_batch(texts)] == texts


def test_a_batch_gives_what_single_texts_give(small: Tokenizer) -> None:
    texts = [*noise(50), "", TEXT]
    assert small.encode_batch(texts) == [small.encode(t) for t in texts]


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "im_end", " ", "a"]), max_size=8).map("".join))
@settings(max_examples=200, deadline=None)
def test_no_text_turns_into_a_special_token(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert not set(ids) & set(small.specials.values())
    assert small.encode_batch([text]) == [ids]
    assert small.decode(ids) == text
    assert small.decode(small.encode(text, special=True)) == text


def test_special_tokens_are_read_when_asked_for(small: Tokenizer) -> None:
    ids = small.encode("a<|im_end|>b<|im_end|>", special=True)
    end = small.id_of("<|im_end|>")
    assert ids == [*small.encode("a"), end, *small.encode("b"), end]
    assert small.decode(ids, special=False) == "ab"


def test_asking_in_one_thread_changes_nothing_in_another(small: Tokenizer) -> None:
    text = "a <|im_end|> b"
    plain, special = small.encode(text), small.encode(text, special=True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: small.encode(text, special=bool(n % 2)), range(2000)))
    assert found == [special if n % 2 else plain for n in range(2000)]


def test_added_tokens_not_marked_special_are_not_read_either(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    added = spec["added_tokens"][-1] | {"id": small.vocab_size, "content": "<tool_call>", "special": False}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec | {"added_tokens": [*spec["added_tokens"], added]}))
    found = Tokenizer.load(tmp_path)
    assert found.encode("x<tool_call>") == small.encode("x<tool_call>")
    assert found.encode("<tool_call>", special=True) == [small.vocab_size]


def test_byte_lengths_add_up_to_the_text(small: Tokenizer) -> None:
    lengths = small.byte_lengths()
    assert lengths.shape == (small.vocab_size,)
    for text in [TEXT, *noise(30)]:
        assert lengths[small.encode(text)].sum() == len(text.encode())
    assert not lengths[list(small.specials.values())].any()
    assert b"".join(map(small.token_bytes, small.encode("é🙂"))) == "é🙂".encode()


def test_the_special_tokens_close_the_vocabulary(small: Tokenizer) -> None:
    assert list(small.specials) == list(SPECIAL_TOKENS)
    assert list(small.specials.values()) == list(range(small.vocab_size - len(SPECIAL_TOKENS), small.vocab_size))
    assert small.eos_id == small.id_of("<|endoftext|>")


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_numbers_are_cut_into_groups(digits: int) -> None:
    made = train_tokenizer(["12345678 " * 50], 300, digits=digits)
    pieces = [made.token_bytes(i) for i in made.encode("12345678")]
    assert max(map(len, pieces)) == digits


def test_training_depends_on_the_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXT * 5, *noise(100)]
    digests = set()
    for parallel in ("true", "false", "true"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        digests.add(train_tokenizer(iter(texts), 600).digest)
    assert len(digests) == 1


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="266"):
        train_tokenizer(["a"], 200)


def test_saved_and_loaded_it_is_the_same(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        found = Tokenizer.load(path)
        assert found.digest == small.digest and found.eos_id == small.eos_id
        assert found.encode(TEXT) == small.encode(TEXT)


def test_transformers_loads_it_with_the_same_ids(small: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    small.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in [TEXT, *noise(30)]:
        assert theirs.encode(text) == small.encode(text)
        assert theirs.decode(small.encode(text)) == text
    assert theirs.encode("a<|im_end|>") == small.encode("a<|im_end|>", special=True)
    assert theirs.eos_token_id == theirs.pad_token_id == small.eos_id


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", "[]", "tokenizer.json"),
        ("tokenizer.json", '{"model": {}}', "not a tokenizer"),
        ("x.tiktoken", "YQ== 0\nYg==\n", "x.tiktoken:2"),
        ("x.tiktoken", "YQ== 0\n", "1 ranks"),
        ("x.tiktoken", "\xff\xfe", "x.tiktoken:1"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, named: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=named):
        Tokenizer.load(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.tiktoken", tmp_path / "tokenizer.json"):
        with pytest.raises(UserError, match=str(tmp_path)):
            Tokenizer.load(path)


# Published vocabularies


def test_gpt2_gives_the_known_answer(data: Path) -> None:
    for path in ("gpt2", "gpt2/vocab.bpe", "gpt2/encoder.json", "r50k_base.tiktoken"):
        gpt2 = Tokenizer.load(data / "tokenizers" / path)
        assert gpt2.encode("hello deep seek") == [31373, 2769, 5380]
        assert (gpt2.vocab_size, gpt2.eos_id) == (50257, 50256)


def test_gpt2_equals_transformers(data: Path) -> None:
    from transformers import GPT2TokenizerFast

    folder = data / "tokenizers/gpt2"
    theirs = GPT2TokenizerFast(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))
    ours = Tokenizer.load(folder)
    for text in [TEXT, *noise(60), *multilingual(data)[:40]]:
        assert ours.encode(text) == theirs.encode(text)


# The split patterns as tiktoken has them (tiktoken_ext/openai_public.py), possessive as they are.
_R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
_UP, _LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UP}*{_LOW}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UP}+{_LOW}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def by_ranks(path: Path, pattern: str) -> Callable[[str], list[int]]:
    """tiktoken's algorithm, written out: split, then merge the adjacent pair whose union has the lowest rank."""
    import regex

    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    cut = regex.compile(pattern, regex.V0)

    def encode(text: str) -> list[int]:
        found = []
        for piece in cut.findall(text):
            whole = piece.encode()
            parts = [whole] if whole in ranks else [whole[i : i + 1] for i in range(len(whole))]
            while len(parts) > 1:
                rank, at = min((ranks.get(parts[i] + parts[i + 1], 1 << 30), i) for i in range(len(parts) - 1))
                if rank == 1 << 30:
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            found += [ranks[p] for p in parts]
        return found

    return encode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pattern", "size"),
    [("r50k", _R50K, 50257), ("p50k", _R50K, 50281), ("cl100k", _CL100K, 100277), ("o200k", _O200K, 200019)],
    ids=["r50k", "p50k", "cl100k", "o200k"],
)
def test_rank_files_give_tiktokens_ids(data: Path, name: str, pattern: str, size: int) -> None:
    path = data / "tokenizers" / f"{name}_base.tiktoken"
    ours, reference = Tokenizer.load(path), by_ranks(path, pattern)
    assert ours.vocab_size == size
    for text in [TEXT, *noise(150), *(t[:2000] for t in multilingual(data))]:
        ids = ours.encode(text)
        assert ids == reference(text)
        assert ours.decode(ids) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"])
def test_rank_files_give_the_ids_of_tiktoken_itself(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own patterns and special tokens, and its check that the file is the published one."""
    tiktoken, load = pytest.importorskip("tiktoken"), pytest.importorskip("tiktoken.load")
    public = pytest.importorskip("tiktoken_ext.openai_public")
    path = data / "tokenizers" / f"{name}.tiktoken"
    read = load.load_tiktoken_bpe
    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda url, expected_hash: read(str(path), expected_hash))
    theirs, ours = tiktoken.Encoding(**getattr(public, name)()), Tokenizer.load(path)
    assert ours.vocab_size == theirs.n_vocab
    assert ours.specials == theirs._special_tokens
    code = [p.read_text(encoding="utf-8") for p in sorted(Path(json.__file__).parent.glob("*.py"))]
    texts = [TEXT, *noise(400), *multilingual(data), *code]
    assert ours.encode_batch(texts) == theirs.encode_ordinary_batch(texts)
    assert [ours.decode(ids) for ids in ours.encode_batch(texts)] == texts
    marked = "a<|endoftext|> b"
    assert ours.encode(marked, special=True) == theirs.encode(marked, allowed_special="all")


def test_lacking_specials_go_behind_a_published_vocabulary(data: Path, tmp_path: Path) -> None:
    gpt2 = Tokenizer.load(data / "tokenizers/gpt2")
    chat = gpt2.with_specials()
    assert gpt2.specials == {"<|endoftext|>": 50256} and not gpt2.chats
    assert chat.chats and chat.id_of("<|im_start|>") == 50257 and chat.vocab_size == 50257 + len(SPECIAL_TOKENS) - 1
    assert chat.encode("hello deep seek") == [31373, 2769, 5380]
    chat.save(tmp_path)
    assert Tokenizer.load(tmp_path).with_specials().digest == chat.digest
