"""The settings of chat: which model, how it samples, and what tools it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llmctl.recipe import InputOf, NoResult, StageSettings


class ChatConfig(StageSettings):
    """Answers of a model, on the screen or recorded as conversations."""

    stage: ClassVar[str] = "chat"
    makes: ClassVar[str] = "conversations"

    out: str = "answers"
    """The name of the conversations to make from `prompts`."""
    model: Annotated[str, InputOf(("model",), files=True)]
    """The model: a name of the workspace or a Hugging Face folder. Chat models answer; base models continue text."""
    prompts: list[str] = []
    """What to ask, each in a conversation of its own. Talking in the terminal needs none."""
    system: str = ""
    """A system message, put before the conversation. A model heeds it only if it was trained with such messages."""
    search: Annotated[str, InputOf(("conversations", "corpus"), files=True)] = ""
    """What the search tool looks in: conversations with a `library.jsonl`, a corpus, a folder of text, or the web, by
    the URL of a search endpoint with `{query}` in it. Empty: the endpoint in `LLMCTL_SEARCH_URL`, else no search."""
    python: bool = True
    """Whether a model that writes a Python call has it run, in a sandbox. A model that was not taught to never does."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """The longest reply, in tokens, tool results included."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """0 always takes the likeliest token: repeatable, and apt to run in circles. 1 samples from the model as it is,
    which shows every weakness of a small model; 0.7 is between."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many likeliest tokens only; 0 from all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Sample from the likeliest tokens that have this much probability together; 1 from all. Cuts the long tail of
    unlikely tokens, one of which is enough to derail a small model."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Leave out tokens less likely than this times the likeliest; 0 leaves out none."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Above 1 makes what has been said less likely to be said again. 1.1 helps base models out of loops, and harms
    answers that must repeat the question's words."""
    stop: list[str] = []
    """Texts that end a reply, besides the model's own end of turn."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """The number format to compute in. `auto`: bf16 where the machine is faster in it."""
    batch_size: Annotated[int, Field(ge=1), NoResult()] = 64
    """Replies written at once. More is faster until memory runs out."""
    reward: Annotated[str, InputOf(("model",), files=True), NoResult()] = ""
    """A reward model: `/score` asks it, and `/n` takes the best answer by it."""
    corrections: Annotated[str, NoResult()] = "corrections"
    """The conversations that `/good`, `/bad` and the page write; `llmctl sft` takes them as they are."""
    choices: Annotated[str, NoResult()] = "choices"
    """The comparisons that `/compare` and the page write; `llmctl rm` takes them as they are."""
    instructions: Annotated[str, NoResult()] = ""
    """A text file with what to look for, shown to who ranks (`--rank`) or writes (`--write`) answers. Empty: a short
    form of what InstructGPT's labellers were told: helpful, true, harmless."""
    log: Annotated[bool, NoResult()] = True
    """Keep every chat in `chats.sqlite` in the workspace, with what it takes to replay it. It holds what you type."""
    markdown: Annotated[bool, NoResult()] = True
    """Show a chat model's Markdown as headings, lists and code on a terminal. Off: the very characters."""
    host: Annotated[str, NoResult()] = "127.0.0.1"
    """The address that `--serve` listens on. Any other than this machine's own needs a key in `LLMCTL_API_KEY`."""
    port: Annotated[int, Field(ge=0, le=65535), NoResult()] = 8000
    """The port that `--serve` listens on; 0 takes a free one."""

    @property
    def search_url(self) -> str:
        """The search endpoint, where `search` names one instead of a library."""
        return self.search if "://" in self.search else ""

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """Those with a digest, which a search endpoint has not."""
        return [found for found in super().inputs() if not self.search_url or found[0] != self.search]

    def recorded(self, fingerprint: bool = False) -> dict[str, Any]:
        """The endpoint counts by its address; what stands behind the question mark may hold somebody's key."""
        where = self.search_url.partition("?")[0]
        return super().recorded(fingerprint) | ({"search": where} if where else {})
