"""vLLM's offline interface, as far as roll-outs use it, on a processor: names, defaults and results as in vLLM 0.12.

Put into `sys.modules` in its place. It loads the folder that it is given, and computes without a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.model import names
from llmctl.model.folder import load_model


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        assert self.n == 1 and self.top_p == 1 and self.top_k in (0, -1) and not self.min_p, "not in this fake"
        assert self.max_tokens is not None and self.max_tokens >= 1, "vLLM refuses max_tokens below 1"
        assert not self.stop or self.detokenize, "vLLM refuses stop strings without detokenize"


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


class Loaded(nn.Module):
    """vLLM's model: weights come in by their published names."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.inner, self.tokenizer = load_model(folder)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        given = dict(weights)
        self.inner.load_state_dict({k: v.clone() for k, v in names.from_published(given, "qwen3").items()})
        return set(given)


class LLM:
    made: list[LLM] = []

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        seed: int | None = None,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        enable_prefix_caching: bool | None = None,
        logprobs_mode: str = "raw_logprobs",
        distributed_executor_backend: str | None = None,
    ) -> None:
        assert dtype in ("float32", "bfloat16") and 0 < gpu_memory_utilization < 1
        self.settings = {"logprobs_mode": logprobs_mode, "backend": distributed_executor_backend}
        self.max_model_len = max_model_len
        self.model = Loaded(model)
        self.requests: list[int] = []  # how many came with each call
        self.cached = self.resets = 0
        self.made.append(self)

    def apply_model(self, func: Callable[[nn.Module], Any]) -> list[Any]:
        self.cached = 1
        return [func(self.model)]

    def reset_prefix_cache(self) -> bool:
        self.cached, self.resets = 0, self.resets + 1
        return True

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: list[SamplingParams], *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        assert not self.cached, "the cache holds what the old weights made"
        self.requests.append(len(prompts))
        pairs = zip((p["prompt_token_ids"] for p in prompts), sampling_params, strict=True)
        return [RequestOutput(ids, [self.complete(ids, how)]) for ids, how in pairs]

    @torch.no_grad()
    def complete(self, prompt: list[int], how: SamplingParams) -> CompletionOutput:
        noise, ids, logprobs, text = torch.Generator().manual_seed(how.seed or 0), [], [], ""
        while True:
            logp = self.scores(prompt + ids, how.temperature)
            token = (
                int(logp.argmax()) if not how.temperature else int(torch.multinomial(logp.exp(), 1, generator=noise))
            )
            ids.append(token)
            logprobs.append({token: Logprob(float(logp[token]))})
            if not how.ignore_eos and token == self.model.tokenizer.eos_id:
                return CompletionOutput(0, text, ids, logprobs, "stop")
            if token in (how.stop_token_ids or ()):
                return CompletionOutput(0, text, ids, logprobs, "stop", token)
            text = self.model.tokenizer.decode(ids) if how.detokenize else ""
            for stop in how.stop or ():
                if stop in text:
                    return CompletionOutput(0, text[: text.index(stop)], ids, logprobs, "stop", stop)
            if len(ids) >= how.max_tokens or len(prompt) + len(ids) >= self.max_model_len:
                return CompletionOutput(0, text, ids, logprobs, "length")

    def scores(self, ids: list[int], temperature: float) -> Tensor:
        inner = self.model.inner
        logits = inner.logits(inner(torch.tensor([ids]))[:, -1])[0]
        assert self.settings["logprobs_mode"] == "processed_logprobs"
        return torch.log_softmax(logits / (temperature or 1.0), -1)
