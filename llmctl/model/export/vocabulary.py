"""A tokenizer laid out flat, as programs without a `tokenizer.json` reader need it: its tokens by id, and its merges.

Two kinds of BPE come this way: byte-level (GPT-2, ours, Llama 3, Qwen), whose text is first cut by a pattern, and
SentencePiece's (Llama 2, stories260K), whose text is one piece, a space put before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from llmctl.errors import UserError
from llmctl.model.chat_format import end_of_turn
from llmctl.model.published import from_byte_level
from llmctl.model.tokenizer import Tokenizer

# What GPT-2's pre-tokenizer, `ByteLevel` with its own pattern, cuts by.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Kind(IntEnum):
    """What a token is; GGUF's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """`names`, `pieces` and `kinds` go by id and have a row for each row of the model's embedding."""

    names: list[str]
    """As `tokenizer.json` writes them."""
    pieces: list[bytes]
    """The bytes each stands for; a special token's name."""
    kinds: list[Kind]
    merges: list[tuple[int, int, int]]
    """(left, right, merged) ids, the first to be merged first."""
    byte_level: bool
    whole_pieces: bool
    """Whether a piece that is a token is taken as it is, unreachable by merges though it may be (`ignore_merges`)."""
    pattern: str
    """The regular expression that cuts text; empty for SentencePiece's kind."""
    start: int
    """The id that stands before a text."""
    ends: list[int]
    """The ids that end a text or a turn."""
    composes: bool
    """Whether text is brought into Unicode's form NFC first, which neither llama.cpp nor our C program does."""


def vocabulary(tokenizer: Tokenizer, rows: int) -> Vocabulary:
    """Lay `tokenizer` out in `rows` rows. UserError for one that works in another way."""
    spec = tokenizer.spec
    model = spec["model"]
    if model.get("type") != "BPE":
        raise UserError(f"a tokenizer of type {model.get('type')!r} cannot be exported", fix="only BPE can")
    sentencepiece, composes = _normalizer(spec.get("normalizer"))
    ids = dict(model["vocab"])
    names, kinds = [f"[UNUSED{i}]" for i in range(rows)], [Kind.UNUSED] * rows
    for name, i in ids.items():
        byte = sentencepiece and re.fullmatch("<0x[0-9A-F]{2}>", name)
        names[i], kinds[i] = name, Kind.BYTE if byte else Kind.NORMAL
    for token in spec.get("added_tokens") or []:
        names[token["id"]] = token["content"]
        kinds[token["id"]] = Kind.CONTROL if token.get("special") else Kind.USER
    if (unknown := ids.get(model.get("unk_token"))) is not None:
        kinds[unknown] = Kind.UNKNOWN
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    bos = tokenizer.config.get("bos_token")
    bos = bos.get("content") if isinstance(bos, dict) else bos
    eos = tokenizer.eos_id
    turn = end_of_turn(tokenizer)
    ends = {eos, eos if turn is None else turn}
    return Vocabulary(
        names=names,
        pieces=[tokenizer.token_bytes(i) for i in range(rows)],
        kinds=kinds,
        merges=[(ids[a], ids[b], ids[a + b]) for a, b in pairs],
        byte_level=not sentencepiece,
        whole_pieces=bool(model.get("ignore_merges")),
        pattern="" if sentencepiece else _pattern(spec.get("pre_tokenizer")),
        # The token between documents begins a text as well, unless the tokenizer names another for that.
        start=tokenizer.id_of(bos) if bos else eos,
        ends=sorted(ends),
        composes=composes,
    )


def _normalizer(found: dict[str, Any] | None) -> tuple[bool, bool]:
    """(SentencePiece's way with spaces, composes to NFC)."""
    steps = [] if found is None else found["normalizers"] if found["type"] == "Sequence" else [found]
    kinds = [s["type"] for s in steps]
    if kinds == ["Prepend", "Replace"]:
        return True, False
    if kinds in ([], ["NFC"]):
        return False, kinds == ["NFC"]
    raise UserError(f"a tokenizer that normalises text ({', '.join(kinds)}) cannot be exported")


def _pattern(found: dict[str, Any] | None) -> str:
    """The one pattern that cuts the text of a byte-level tokenizer."""
    steps = [] if found is None else found["pretokenizers"] if found["type"] == "Sequence" else [found]
    kinds = [s["type"] for s in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return _GPT2
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        how = (steps[0]["behavior"].lower(), bool(steps[0].get("invert")))
        if how in (("isolated", False), ("removed", True)) and "Regex" in steps[0]["pattern"]:
            return str(steps[0]["pattern"]["Regex"])
    raise UserError(
        f"a tokenizer that cuts text by {', '.join(kinds) or 'nothing'} cannot be exported",
        fix="byte-level BPE behind one pattern, or SentencePiece's BPE, can",
    )


def byte_ids(found: Vocabulary) -> list[int]:
    """The id of each of the 256 bytes; -1 where there is none."""
    ids = [-1] * 256
    for i, (name, kind) in enumerate(zip(found.names, found.kinds, strict=True)):
        if kind is Kind.BYTE:
            ids[int(name[3:5], 16)] = i
        elif kind is Kind.NORMAL and found.byte_level and len(name) == 1:
            ids[from_byte_level(name)[0]] = i
    return ids
