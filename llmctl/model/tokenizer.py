"""Byte-level BPE: trained, loaded, saved, and safe on text that nobody has checked.

Wraps the `tokenizers` library. The engine is built *without* the added (special) tokens of the tokenizer, so no text
can ever turn into one: `encode(text, special=True)`, for whoever asks, cuts the text at special tokens here. That needs
no switch on a shared object, so threads may encode at will. (The library's own switch, `encode_special_tokens`, is such
a shared one, and leaves added tokens that are not marked special, Qwen's `<tool_call>` for one, readable in any text.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from llmctl.errors import UserError
from llmctl.model import bpe, llama2c, published
from llmctl.model.chat_format import CHAT_TEMPLATE, CHAT_TOKENS, format_of
from llmctl.model.hub import local
from llmctl.workspace.files import sha256_json, write_atomic, write_json

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, *CHAT_TOKENS)
# What a published folder says about its tokenizer, of which nothing is changed as long as the tokenizer is the same.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


class Tokenizer:
    """Text to token ids and back. `specials` maps each special token to its id."""

    def __init__(self, spec: dict[str, Any], config: Mapping[str, Any] | None = None, where: str = "") -> None:
        """From the contents of a `tokenizer.json` and a `tokenizer_config.json`."""
        self._spec, self.config, self._where = spec, dict(config or {}), where
        self._own: dict[str, bytes] = {}  # the files of the folder it was read from
        self.specials: dict[str, int] = {t["content"]: int(t["id"]) for t in spec.get("added_tokens") or []}
        plain = {**spec, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        try:
            self._engine = tokenizers.Tokenizer.from_str(json.dumps(plain))
        except Exception as e:
            raise UserError(f"not a tokenizer: {e}", where) from e
        self._cut = re.compile("(" + "|".join(map(re.escape, sorted(self.specials, key=len, reverse=True))) + ")")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a folder with a `tokenizer.json` (or GPT-2's `encoder.json` and `vocab.bpe`), or one of these files, a
        `.tiktoken` rank file, llama2.c's `.bin`, or `hf:org/name`. UserError names what is missing or damaged.
        """
        path = local(path, weights=False)
        if path.suffix == llama2c.SUFFIX:
            return cls(*llama2c.read_tokenizer(path), str(path))
        if path.suffix == ".tiktoken":
            return cls(published.from_ranks(path), {"eos_token": END_OF_TEXT}, str(path))
        folder = path if path.is_dir() else path.parent
        if path.name in ("encoder.json", "vocab.bpe") or (
            path.is_dir() and not (path / "tokenizer.json").exists() and (path / "vocab.bpe").exists()
        ):
            return cls(published.from_gpt2(folder), {"eos_token": END_OF_TEXT}, str(folder))
        file = path / "tokenizer.json" if path.is_dir() else path
        config = folder / "tokenizer_config.json"
        loaded = _read_json(config) if config.exists() else {}
        template = folder / "chat_template.jinja"
        if template.exists():
            loaded["chat_template"] = template.read_text(encoding="utf-8")
        found = cls(_read_json(file), loaded, str(file))
        if file == folder / "tokenizer.json":  # what lies beside a file of another name is another tokenizer's
            found._own = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
        return found

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`: `AutoTokenizer` loads the folder.

        One that was read from a folder is written with that folder's own files, byte for byte.
        """
        folder = Path(folder)
        if "tokenizer_config.json" in self._own:
            for name, content in self._own.items():
                write_atomic(folder / name, content)
            return
        eos = self._name_of(self.config.get("eos_token")) or (END_OF_TEXT if END_OF_TEXT in self.specials else None)
        config = {k: v for k, v in self.config.items() if k != "chat_template"}
        config |= {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "eos_token": eos,
            # Padding is masked by length, never by id; and it is not what ends an assistant's turn.
            "pad_token": self._name_of(config.get("pad_token")) or eos,
        }
        write_atomic(folder / "tokenizer.json", json.dumps(self._spec, ensure_ascii=False) + "\n")
        write_json(folder / "tokenizer_config.json", config)
        if self.chat_template:
            write_atomic(folder / "chat_template.jinja", self.chat_template)

    @property
    def spec(self) -> Mapping[str, Any]:
        """The contents of its `tokenizer.json`; not to be changed."""
        return self._spec

    @property
    def chats(self) -> bool:
        """Whether it has every token of our chat format, or is made for one of the others that `chat_format` knows."""
        ours = all(t in self.specials for t in CHAT_TOKENS)
        return ours or (format_of(self) is not None and bool(self.chat_template))

    @property
    def chat_template(self) -> str | None:
        """How others show it a conversation, in Jinja: our format where it has all of its tokens, else its own."""
        own = self.config.get("chat_template")
        return CHAT_TEMPLATE if all(t in self.specials for t in CHAT_TOKENS) else own if isinstance(own, str) else None

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id: the rows an embedding needs."""
        return max([*self._vocab.values(), *self.specials.values()]) + 1

    @property
    def eos_id(self) -> int:
        """The id of the token between documents. UserError where there is none."""
        for name in (self._name_of(self.config.get("eos_token")), END_OF_TEXT, "</s>"):
            if name is not None and (found := self.specials.get(name, self._vocab.get(name))) is not None:
                return found
        raise UserError("the tokenizer has no token that ends a document", self._where, f"add {END_OF_TEXT!r} to it")

    @property
    def bos_id(self) -> int:
        """The id of the token that a document begins with: the one between documents, unless it has one of its own."""
        name = self._name_of(self.config.get("bos_token"))
        found = None if name is None else self.specials.get(name, self._vocab.get(name))
        return self.eos_id if found is None else found

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of what it does; equal for equal tokenizers, wherever they lie."""
        return sha256_json(self._spec)

    def id_of(self, token: str) -> int:
        """The id of a token written as in the vocabulary. UserError where there is none."""
        found = self.specials.get(token, self._vocab.get(token))
        if found is None:
            raise UserError(f"the tokenizer has no token {token!r}", self._where)
        return found

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids. Special tokens in `text` are plain text unless `special` asks for them.

        Every string can be encoded: lone surrogates, which are no text, become U+FFFD.
        """
        if special and self.specials:
            pieces = self._cut.split(text)  # every second piece is a special token
            return [i for n, p in enumerate(pieces) for i in ([self.specials[p]] if n % 2 else self.encode(p))]
        return self._engine.encode(well_formed(text), add_special_tokens=False).ids if text else []

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, on all cores. Special tokens in them are plain text."""
        found = self._engine.encode_batch_fast([well_formed(t) for t in texts], add_special_tokens=False)
        return [e.ids for e in found]

    def decode(self, ids: Iterable[int], special: bool = True) -> str:
        """Text; special tokens as their names, or left out. Bytes that are no UTF-8 become U+FFFD."""
        if self._byte_level:
            dropped = set() if special else set(self.specials.values())
            return b"".join(self.token_bytes(i) for i in ids if i not in dropped).decode("utf-8", errors="replace")
        return self._whole_engine.decode([int(i) for i in ids], skip_special_tokens=not special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, which need not be whole characters; a special token's name. b"" for no token."""
        return self._bytes.get(int(token), b"")

    def byte_lengths(self) -> np.ndarray:
        """(V,) int64: the bytes of text each token stands for; 0 for special tokens."""
        lengths = np.zeros(self.vocab_size, np.int64)
        for token, text in self._bytes.items():
            lengths[token] = len(text)
        lengths[list(self.specials.values())] = 0
        return lengths

    def with_specials(self, ids: Mapping[str, int] | None = None) -> Tokenizer:
        """The same with further special tokens at the given ids; by default, what it lacks of `SPECIAL_TOKENS`, behind
        the vocabulary. Itself where nothing lacks.
        """
        if ids is None:
            lacking = [t for t in SPECIAL_TOKENS if t not in self.specials]
            ids = {t: self.vocab_size + n for n, t in enumerate(lacking)}
        if not ids:
            return self
        taken = set(self._vocab.values()) | set(self.specials.values())
        assert not taken & set(ids.values()), "an id is taken"
        return Tokenizer({**self._spec, "added_tokens": [*self._spec["added_tokens"], *_added(ids)]}, self.config)

    def with_template(self, template: str) -> Tokenizer:
        """The same for another chat template."""
        return (
            self if self.chat_template == template else Tokenizer(self._spec, self.config | {"chat_template": template})
        )

    @cached_property
    def _vocab(self) -> dict[str, int]:
        return self._engine.get_vocab()

    @cached_property
    def _byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps([self._spec.get("pre_tokenizer"), self._spec.get("decoder")])

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        """The bytes of every id; specials by name."""
        turn = published.from_byte_level if self._byte_level else _from_sentencepiece
        found = {i: turn(t) for t, i in self._vocab.items() if t not in self.specials}
        return found | {i: t.encode() for t, i in self.specials.items()}

    @cached_property
    def _whole_engine(self) -> tokenizers.Tokenizer:
        """The engine with its added tokens, which the decoders of tokenizers that are not byte-level need."""
        return tokenizers.Tokenizer.from_str(json.dumps(self._spec))

    @staticmethod
    def _name_of(token: Any) -> str | None:
        return token.get("content") if isinstance(token, Mapping) else token


def train_tokenizer(texts: Iterable[str], vocab_size: int, digits: int = 2) -> Tokenizer:
    """Train byte-level BPE on `texts`. `vocab_size` counts the 256 bytes and the special tokens as well."""
    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise UserError(f"vocab_size is {vocab_size}; bytes and special tokens alone are {least}", fix="make it larger")
    pattern, texts = published.gpt4_pattern(digits), map(well_formed, texts)
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    size = vocab_size - len(SPECIAL_TOKENS)
    if find_spec("regex"):
        engine.model = models.BPE(*bpe.learn(texts, digits, size))
    else:  # the same vocabulary, at a tenth of the speed
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        engine.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        )
    spec = json.loads(engine.to_str())
    # Special tokens go behind the vocabulary, as in every published GPT tokenizer, so byte ids are the same everywhere.
    size = len(spec["model"]["vocab"])
    spec["added_tokens"] = _added({t: size + n for n, t in enumerate(SPECIAL_TOKENS)})
    return Tokenizer(spec, {"eos_token": END_OF_TEXT})


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold (JSON can), replaced by U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _added(ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Special tokens as `tokenizer.json` writes them."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": i, "content": t, **flags} for t, i in sorted(ids.items(), key=lambda item: item[1])]


def _from_sentencepiece(token: str) -> bytes:
    """The bytes of a token of a SentencePiece vocabulary: `<0x0A>` is one byte, U+2581 a space."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(
            f"cannot read it: {e.strerror}", str(path), "a tokenizer is a folder with tokenizer.json"
        ) from e
    except ValueError as e:
        raise UserError(f"not JSON: {e}", str(path)) from e
    if not isinstance(found, dict):
        raise UserError("not a JSON object", str(path))
    return found
