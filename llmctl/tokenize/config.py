"""The settings of `tokenize`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmctl.recipe import InputOf, NoResult, StageSettings


class TokenizeConfig(StageSettings):
    """A corpus becomes a tokenizer (unless one is given) and memory-mapped token shards."""

    stage: ClassVar[str] = "tokenize"
    makes: ClassVar[str] = "tokens"

    out: str = "tokens"
    """The name of the tokens, and of the tokenizer where one is trained."""
    corpus: Annotated[str, InputOf(("corpus",), files=True)]
    """What to tokenize: a corpus, or a path: a text file, JSONL with a "text" key, Parquet with a "text" column, or a
    folder of these."""
    tokenizer: Annotated[str, InputOf(("tokenizer", "model", "tokens"), files=True)] = ""
    """A tokenizer to use instead of training one: an artifact (a model's is taken as well), a tokenizer.json, GPT-2's
    encoder.json and vocab.bpe, or a .tiktoken file. The chat tokens it lacks are added behind its vocabulary."""
    vocab_size: int = Field(8192, ge=266, le=1 << 20)
    """How many tokens to learn, with the 256 bytes and 10 special tokens. Larger: fewer tokens a text, but a larger
    embedding and head to train; 8,192 fits models of 1 to 20 M parameters, 32,768 those of 100 M and more."""
    digits: Literal[0, 1, 2, 3] = 0
    """The most digits a token may hold. 0 chooses: 1 up to a vocabulary of 16,384, as small models learn sums best
    digit by digit (arXiv:2102.13019) and 100 two-digit tokens would be rare; 2 below 65,536 (nanochat measured it best
    at 32,768); 3 above, as GPT-4."""
    compare: list[str] = []
    """Other tokenizers to count the held-out text with, as `tokenizer` names them: GPT-2's files or GPT-4's
    `cl100k_base.tiktoken` show what a vocabulary is worth."""
    max_train_chars: int = Field(200_000_000, ge=1)
    """How many characters to learn the vocabulary from; the first ones of the training split. About 5 s of
    a core for 200 M with a C++ compiler, half a minute without, and more changes little."""
    val_fraction: float = Field(0.02, gt=0, le=0.5)
    """The part held out to measure on, chosen by the hash of each document's text, so that copies of one text are never
    on both sides. A corpus too small to hold out a document gives the tail of one."""
    shard_tokens: int = Field(100_000_000, ge=1)
    """Tokens a shard file: 200 MB with vocabularies up to 65,536."""
    workers: Annotated[int, NoResult()] = Field(0, ge=0)
    """Threads; 0 takes every core."""
    engine: Annotated[Literal["local"], NoResult()] = "local"
    """Where it runs. Only here: a core encodes about 2 MB a second, and reading the corpus is the rest of the work."""

    def digits_for(self, vocab_size: int) -> int:
        """The `digits` that 0 stands for."""
        return self.digits or (1 if vocab_size <= 16384 else 2 if vocab_size < 65536 else 3)
