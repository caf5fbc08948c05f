"""Bits per byte: how well a model predicts text it has not seen, comparable between tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.formats.tokens import TokenReader, TokenWriter, dtype_for, write_meta
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.train.evaluate import bits_per_byte
from llmctl.workspace import Artifact

_SPLIT = "val"


def measure_loss(
    model: Transformer, tokenizer: Tokenizer, tokens: Artifact, limit: int, precision: str, scratch: Path
) -> float | None:
    """Bits per byte of `model` over at most `limit` tokens of the validation split; None where that split is empty.

    Where the model has another tokenizer, the text is encoded again with it (the split then ends at a document).
    """
    reader = TokenReader(tokens.path, _SPLIT)
    theirs = Tokenizer.load(tokens.path / "tokenizer")
    if theirs.digest != tokenizer.digest:
        reader = _encoded_again(reader, theirs, tokenizer, limit, scratch)
    if reader.tokens < 2:
        return None
    return bits_per_byte(model, reader, tokenizer.byte_lengths(), limit, model.config.context, precision)


def _encoded_again(reader: TokenReader, theirs: Tokenizer, mine: Tokenizer, limit: int, folder: Path) -> TokenReader:
    """The documents of the split, up to `limit` of its tokens, in another tokenizer's ids."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = TokenWriter(folder, _SPLIT, dtype_for(mine.vocab_size), 1 << 62)
    seen = 0
    for i in range(reader.documents):
        ids: list[Any] = reader.document(i).tolist()
        seen += len(ids)
        if i and seen > limit:
            break
        text = theirs.decode(ids, special=False)
        writer.add([*mine.encode(text), mine.eos_id], len(text.encode()))
    writer.close()
    write_meta(folder, [writer], tokenizer=mine.digest)
    return TokenReader(folder, _SPLIT)
