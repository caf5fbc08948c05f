"""A published model made ready for conversations: the chat format's tokens, and rows for them in its tables."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from llmctl.model.chat_format import OURS, WRAPS, format_of
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer


def with_chat_tokens(model: Transformer, tokenizer: Tokenizer) -> tuple[Transformer, Tokenizer]:
    """Both with every token of the chat format and of documents; as they are if nothing lacks.

    `model` is changed: its tables grow where there is no room behind the vocabulary. The new tokens begin as the mean
    of all others, so that none of them is likely, or far off, before it is learned (nlp.stanford.edu/~johnhew,
    "Initializing new word embeddings").
    """
    return _grown(model, tokenizer, tokenizer.with_specials())


def for_conversations(model: Transformer, tokenizer: Tokenizer, tools: bool) -> tuple[Transformer, Tokenizer]:
    """Both ready to be trained on conversations: in the format of their own, if `chat_format` knows it, and with the
    tokens of tool calls only where there are `tools`; otherwise with every token of our format.

    The template becomes the plain one of the format, since that is what will have been trained: published ones often
    add a system message of their own.
    """
    form = format_of(tokenizer)
    if form is None or form is OURS:
        return with_chat_tokens(model, tokenizer)
    lacking = [t for wrap in WRAPS.values() for t in wrap if t and t not in tokenizer.specials] if tools else []
    grown = tokenizer.with_specials({t: tokenizer.vocab_size + n for n, t in enumerate(lacking)})
    return _grown(model, tokenizer, grown.with_template(form.template))


def _grown(model: Transformer, tokenizer: Tokenizer, grown: Tokenizer) -> tuple[Transformer, Tokenizer]:
    known = tokenizer.vocab_size
    if grown.vocab_size == known:
        return model, grown
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
