r"""Which of llama.cpp's ways to cut text before BPE is the model's own.

GGUF has no place for a split pattern, only for the name of one that llama.cpp was built with (`tokenizer.ggml.pre`).
The name is found by trying: the model's pattern and each known one cut the same texts, and the one that cuts them alike
is it. Numbers in groups of two at most (`\p{N}{1,2}`, as nanochat and our vocabularies between 16,385 and 65,535 have
them) are in none of them.
"""

from __future__ import annotations

import itertools
from functools import cache

from tokenizers import Regex, pre_tokenizers

from llmctl.model.export.vocabulary import Kind, Vocabulary

_LLAMA3 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# From llama.cpp's src/llama-vocab.cpp: name -> (pattern, whether a piece that is a token is taken whole).
_KNOWN = {
    "gpt-2": (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)", False),
    "qwen2": (_LLAMA3 % "", False),
    "smaug-bpe": (_LLAMA3 % "{1,3}", False),
    "llama-bpe": (_LLAMA3 % "{1,3}", True),
    "gpt-4o": (
        r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
        r"|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        False,
    ),
}
# What patterns differ in, in every order of three: contractions, cases, digits, marks, white space, line breaks.
_PARTS = [
    "a",
    "Zb",
    "don't",
    "DON'T",
    "'s",
    "7",
    "42",
    "123",
    "12345",
    "७८९",
    "é",
    "É",
    "e\u0301",
    "中文",
    "ß",
    " ",
    "  ",
    "\n",
    "\r\n ",
    "!",
    "//\n",
    "🙂",
    "'",
]


def pre_tokenizer(words: Vocabulary) -> tuple[str, list[str]]:
    """The name of the way that is nearest, and a note for what it does otherwise."""
    ours = _cut(words.pattern)
    wrong = {
        name: sum(a != b for a, b in zip(ours, _cut(pattern), strict=True)) for name, (pattern, _) in _KNOWN.items()
    }
    name = min(wrong, key=lambda n: (wrong[n], _KNOWN[n][1] != words.whole_pieces))
    notes: list[str] = []
    if wrong[name]:
        notes.append(
            f"llama.cpp has no split pattern equal to this model's: it gets the nearest, {name!r}, which cuts "
            f"{wrong[name] / len(ours):.1%} of hard texts otherwise, as {_example(words.pattern, _KNOWN[name][0])}"
        )
    whole = _KNOWN[name][1]
    if whole != words.whole_pieces and (lost := _out_of_reach(words)):
        notes.append(
            f"{lost:,} of its tokens are {'not ' if whole else ''}reached by merging; llama.cpp "
            f"{'uses' if whole else 'never uses'} them"
        )
    return name, notes


@cache
def _texts() -> list[str]:
    return ["".join(parts) for parts in itertools.product(_PARTS, repeat=3)]


@cache
def _cut(pattern: str) -> list[list[str]]:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return [[piece for piece, _ in split.pre_tokenize_str(text)] for text in _texts()]


def _example(ours: str, theirs: str) -> str:
    """The first text that they cut in different ways, and how."""
    differing = ((a, b) for a, b in zip(_cut(ours), _cut(theirs), strict=True) if a != b)
    a, b = min(differing, key=lambda pair: len("".join(pair[0])))
    return f"{'|'.join(b)!r} where it should be {'|'.join(a)!r}"


def _out_of_reach(words: Vocabulary) -> int:
    """How many tokens merging does not make out of their own bytes."""
    from tokenizers import Tokenizer as Engine
    from tokenizers import models

    ids = {n: i for i, (n, k) in enumerate(zip(words.names, words.kinds, strict=True)) if k is Kind.NORMAL}
    engine = Engine(models.BPE(ids, [(words.names[a], words.names[b]) for a, b, _ in words.merges]))
    return sum(e.ids != [i] for e, i in zip(engine.encode_batch(list(ids)), ids.values(), strict=True))
