"""The settings of an endpoint, for every stage that asks one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from llmctl.recipe import NoResult, Settings


class EndpointSettings(Settings):
    """A server that speaks the OpenAI protocol: a provider's, vLLM, llama.cpp, Ollama, or `llmctl chat --serve`."""

    url: Annotated[str, NoResult()] = ""
    """Where it is, e.g. http://localhost:8000/v1. Where a model is served does not count as a change of settings."""
    model: str = ""
    """The model's name there."""
    key_env: Annotated[str, NoResult()] = "LLMCTL_ENDPOINT_KEY"
    """The environment variable with the key. A key is never written anywhere, and is sent over plain http to this
    machine only. A name of its own, so that no provider's key goes to another by mistake."""
    concurrency: Annotated[int, Field(ge=1, le=512), NoResult()] = 8
    """Requests under way at once. A provider's rate limit, or the batch of a server of your own, is the bound."""
    timeout: Annotated[float, Field(gt=0), NoResult()] = 120.0
    """Seconds that one request may take altogether. A reasoning model may need several hundred."""
    attempts: Annotated[int, Field(ge=1, le=50), NoResult()] = 6
    """Tries of a request that fails in a way that may pass, with waits of 1, 2, 4 ... seconds, or what the server asks
    for (Retry-After)."""
    price_in: Annotated[float, Field(ge=0), NoResult()] = 0.0
    """Price of a million tokens of prompt, in any currency: for the estimate of --dry-run and the sum in the end."""
    price_out: Annotated[float, Field(ge=0), NoResult()] = 0.0
    """Price of a million tokens of reply."""
    max_cost: Annotated[float, Field(ge=0), NoResult()] = 0.0
    """Stop, with all replies kept, once this much has been spent. 0 is no limit."""
    extra: dict[str, Any] = {}
    """Further fields of the request, as the server knows them; null takes a field out (`{seed: null}`)."""

    @model_validator(mode="after")
    def _whole(self) -> EndpointSettings:
        if bool(self.url) != bool(self.model):
            raise ValueError("needs both url and model")
        if self.max_cost and not (self.price_in or self.price_out):
            raise ValueError("max_cost needs price_in and price_out")
        return self

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """The price of so many tokens."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6
