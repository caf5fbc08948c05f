"""One example as it will be trained: every token, and which of them are learned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from llmctl.console import Console
from llmctl.model.tokenizer import Tokenizer
from llmctl.sft.data import Example

_MOST = 1500  # characters of an example


def show(example: Example, tokenizer: Tokenizer, form: str, console: Console) -> None:
    """Print it: what is learned in green on a terminal, in double brackets elsewhere."""
    ids, mask = example
    learned = f"{sum(mask):,} of its {len(ids):,} tokens"
    if console.live:
        from rich.text import Text

        console.info(f"sft: an example in the format {form}; learned (green): {learned}")
        styled = Text()
        for text, trained in _cut(runs(example, tokenizer)):
            styled.append(text, "green" if trained else "dim")
        console.rich.print(styled)
    else:
        console.info(f"sft: an example in the format {form}; learned (in [[ ]]): {learned}")
        console.info(bracketed(example, tokenizer))


def bracketed(example: Example, tokenizer: Tokenizer) -> str:
    """Its text, what is learned in double brackets."""
    return "".join(f"[[{t}]]" if trained else t for t, trained in _cut(runs(example, tokenizer)))


def runs(example: Example, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
    """(text, whether it is learned) of each run of tokens that are alike; special tokens by their names."""
    for trained, pairs in groupby(zip(*example, strict=True), key=lambda pair: pair[1]):
        yield tokenizer.decode(i for i, _ in pairs), trained


def _cut(some: Iterator[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    left = _MOST
    for text, trained in some:
        if len(text) > left:
            yield text[:left] + " ...", trained
            return
        left -= len(text)
        yield text, trained
