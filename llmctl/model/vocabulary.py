"""A published model made ready for conversations: the chat format's tokens, and rows for them in its tables."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer


def with_chat_tokens(model: Transformer, tokenizer: Tokenizer) -> tuple[Transformer, Tokenizer]:
    """Both with every token of the chat format and of documents; as they are if nothing lacks.

    `model` is changed: its tables grow where there is no room behind the vocabulary. The new tokens begin as the mean
    of all others, so that none of them is likely, or far off, before it is learned (nlp.stanford.edu/~johnhew,
    "Initializing new word embeddings").
    """
    known, grown = tokenizer.vocab_size, tokenizer.with_specials()
    if grown is tokenizer:
        return model, tokenizer
    model.embed_tokens.weight = _extended(model.embed_tokens.weight, known, grown.vocab_size)
    if model.lm_head is not None:
        model.lm_head.weight = _extended(model.lm_head.weight, known, grown.vocab_size)
    model.config = replace(model.config, vocab_size=len(model.embed_tokens.weight))
    model.embed_tokens.num_embeddings = model.config.vocab_size
    return model, grown


def _extended(table: nn.Parameter, known: int, size: int) -> nn.Parameter:
    """`table` (V,D) with at least `size` rows, those from `known` to `size` the mean of the ones before."""
    rows = table.detach()
    mean = rows[:known].mean(0, keepdim=True).expand(size - known, -1)
    return nn.Parameter(torch.cat((rows[:known], mean, rows[size:])), requires_grad=table.requires_grad)
