"""Published vocabularies as `tokenizer.json`: GPT-2's two files, and OpenAI's `.tiktoken` rank files.

Each gives the ids that the original software gives, on every text. Rank files say only which byte strings are tokens
and in which order they were merged; the pairs, the split pattern and the special tokens are put back here.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from llmctl.errors import UserError

# tiktoken's patterns with their possessive quantifiers made plain ones: the `tokenizers` regex engine reads `?+`
# another way. Both match the same: equal ids on 13,000 texts, random Unicode and all short white space among them.
_GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
# How many ranks a published file has -> its split pattern and special tokens (tiktoken_ext/openai_public.py).
_KNOWN: dict[int, tuple[str, dict[str, int]]] = {
    50256: (_GPT2, {"<|endoftext|>": 50256}),  # r50k, GPT-2
    50280: (_GPT2, {"<|endoftext|>": 50256}),  # p50k
    100256: (
        _GPT4 % 3,  # cl100k, GPT-4
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    199998: (_O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),  # o200k, GPT-4o
}


def gpt4_pattern(digits: int) -> str:
    """GPT-4's split pattern with numbers cut into groups of at most `digits`."""
    return _GPT4 % digits


def from_gpt2(folder: Path) -> dict[str, Any]:
    """GPT-2's `encoder.json` and `vocab.bpe` as the contents of a `tokenizer.json`."""
    try:
        vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
        merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    except (OSError, ValueError) as e:
        raise UserError(f"cannot read encoder.json and vocab.bpe: {e}", str(folder)) from e
    if any(len(m) != 2 or m[0] + m[1] not in vocab for m in merges):
        raise UserError("damaged: a merge does not fit encoder.json", str(folder / "vocab.bpe"))
    end = vocab.pop("<|endoftext|>", None)
    specials = {} if end is None else {"<|endoftext|>": end}
    return _spec(vocab, merges, _GPT2, specials, ignore_merges=False)


def from_ranks(path: Path) -> dict[str, Any]:
    """A `.tiktoken` rank file as the contents of a `tokenizer.json`."""
    ranks = _read_ranks(path)
    if len(ranks) not in _KNOWN:
        raise UserError(
            f"{len(ranks)} ranks: neither r50k, p50k, cl100k nor o200k, or damaged",
            str(path),
            "get the file again, or give a tokenizer.json",
        )
    pattern, specials = _KNOWN[len(ranks)]
    vocab = {to_byte_level(token): rank for token, rank in ranks.items()}
    merges = [[to_byte_level(a), to_byte_level(b)] for a, b in _pairs(ranks)]
    return _spec(vocab, merges, pattern, specials, ignore_merges=True)


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(path)) from e
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as e:
            raise UserError(f"not a line of a rank file: {e}", f"{path}:{number}") from e
    return ranks


def _pairs(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that each token of two bytes or more is merged from, in the order of the ranks.

    It is what BPE has left when it runs on the token's own bytes with the ranks below the token's. A token that BPE
    does not reach has no pair: the originals take it only where it is a whole piece of the split, as `ignore_merges`
    does.
    """
    found = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        cuts = [
            i for i in range(1, len(token)) if ranks.get(token[:i], rank) < rank and ranks.get(token[i:], rank) < rank
        ]
        if len(cuts) == 1:
            found.append((token[: cuts[0]], token[cuts[0] :]))
        elif cuts and len(left := _merge(token, ranks, rank)) == 2:
            found.append((left[0], left[1]))
    return found


def _merge(token: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """BPE on the bytes of `token`, with the ranks under `below`."""
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 1:
        best = min(range(len(pieces) - 1), key=lambda i: ranks.get(pieces[i] + pieces[i + 1], below))
        if ranks.get(pieces[best] + pieces[best + 1], below) >= below:
            break
        pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
    return pieces


def _spec(
    vocab: dict[str, int], merges: list[list[str]], pattern: str, specials: dict[str, int], ignore_merges: bool
) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t, **flags} for t, i in specials.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": vocab,
            "merges": merges,
        },
    }


@cache
def _alphabet() -> tuple[dict[int, str], dict[str, int]]:
    """GPT-2's printable stand-ins for the 256 bytes, both ways: visible Latin-1 as it is, the rest from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in visible]
    there = {b: chr(b) for b in visible} | {b: chr(256 + n) for n, b in enumerate(rest)}
    return there, {c: b for b, c in there.items()}


def to_byte_level(token: bytes) -> str:
    """Bytes as byte-level vocabularies write them."""
    there = _alphabet()[0]
    return "".join(there[b] for b in token)


def from_byte_level(token: str) -> bytes:
    """A token of a byte-level vocabulary as bytes; a token with foreign characters as its UTF-8."""
    back = _alphabet()[1]
    try:
        return bytes(back[c] for c in token)
    except KeyError:
        return token.encode()
