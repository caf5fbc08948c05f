"""Loss on text that was not trained on, document by document: bits per byte, which compare between tokenizers, and the
loss and perplexity a token, which do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmctl.eval.questions import LOSS
from llmctl.eval.task_scores import overall
from llmctl.formats.tokens import TokenReader, TokenWriter, dtype_for, write_meta
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.train.device import autocast
from llmctl.workspace import Artifact

Row = dict[str, Any]
_SPLIT = "val"
_ROWS = 16
_LOGITS = 1 << 25  # numbers of one block of logits: 128 MB
# What is made of a document's sums: (score, metric).
_SCORES = ((LOSS, "bits_per_byte"), ("loss", "loss"), ("perplexity", "token_perplexity"))


def measure_loss(
    model: Transformer, tokenizer: Tokenizer, tokens: Artifact, limit: int, precision: str, scratch: Path
) -> list[Row]:
    """A row for each document among the first `limit` tokens of the validation split, with its summed log-likelihood
    over its bytes and tokens; none where that split is empty.

    Where the model has another tokenizer, the text is encoded again with it (the split then ends at a document).
    """
    reader = TokenReader(tokens.path, _SPLIT)
    theirs = Tokenizer.load(tokens.path / "tokenizer")
    end = min(limit, reader.tokens)
    if theirs.digest != tokenizer.digest:
        reader = _encoded_again(reader, theirs, tokenizer, limit, scratch)
        end = reader.tokens
    if end < 2:
        return []
    sums = document_sums(model, reader, tokenizer.byte_lengths(), end, precision)
    return [_row(n, *mine, whole=int(reader.ends[n]) <= end) for n, mine in enumerate(sums.tolist()) if mine[2]]


def document_sums(
    model: Transformer, reader: TokenReader, byte_lengths: np.ndarray, end: int, precision: str
) -> np.ndarray:
    """(documents, 3): nats, bytes and tokens of each document among the first `end` tokens of `reader`.

    In windows of the context, as in `train.evaluate`: together the documents make the bits per byte that training
    shows. Tokens without bytes (special ones) do not count.
    """
    ids = reader.window(0, end).astype(np.int64)
    document, size = reader.segments(0, end)[1:], byte_lengths[ids[1:]].astype(float)
    nats = np.concatenate(list(_nats(model, torch.from_numpy(ids), precision)))
    counted = size > 0
    columns = (nats * counted, size, counted)
    return np.stack([np.bincount(document, weights=c.astype(float)) for c in columns], 1)


@torch.inference_mode()
def _nats(model: Transformer, ids: Tensor, precision: str) -> Iterator[np.ndarray]:
    """The loss of each token of `ids` (N,) but the first, in order."""
    context, device = model.config.context, next(model.parameters()).device
    step = context * _ROWS
    model.eval()
    for at in range(0, len(ids) - 1, step):
        part = ids[at : at + step + 1]
        whole = (len(part) - 1) // context * context
        for x, y in ((part[:whole], part[1 : whole + 1]), (part[whole:-1], part[whole + 1 :])):
            if len(x):
                with autocast(precision, device):
                    hidden = model(x.view(-1, min(context, len(x))).to(device)).flatten(0, 1)
                    yield _losses(model, hidden, y.to(device))


def _losses(model: Transformer, hidden: Tensor, targets: Tensor) -> np.ndarray:
    found = []
    size = max(1, _LOGITS // model.config.vocab_size)
    for h, y in zip(hidden.split(size), targets.split(size), strict=True):
        logits = model.logits(h)
        found.append(logits.logsumexp(-1) - logits.gather(1, y[:, None])[:, 0])
    return torch.cat(found).double().cpu().numpy()


def loss_scores(model: str, rows: Sequence[Row], seed: int) -> list[Row]:
    """Bits per byte, loss and perplexity over all the documents, with intervals over these."""
    found = []
    for task, metric in _SCORES:
        score: Row = {"model": model, "task": task, "group": "", "n": 0, "correct": None, "value": None}
        score |= {"stderr": None, "low": None, "high": None, "unit": "bits a byte"}
        found.append(score | (overall([r["metrics"][metric] for r in rows], metric, seed) if rows else {}))
    return found if rows else found[:1]


def _row(number: int, nats: float, size: float, tokens: float, *, whole: bool) -> Row:
    by = {"bits_per_byte": [-nats, size], "loss": [-nats, tokens], "token_perplexity": [-nats, tokens]}
    # A document that is cut off is another text where another tokenizer cuts it.
    ident = str(number) if whole else f"{number}, its first {size:.0f} bytes"
    return {"id": ident, "task": LOSS, "group": "", "metrics": by}


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
