"""OpenAI's protocol: request bodies into what the engine is asked, answers into the JSON that its clients read.

What a body asks for and this server cannot do is refused by name: an answer that silently lacks it would be worse.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from llmctl.chat.config import ChatConfig
from llmctl.chat.http import HttpError
from llmctl.chat.speaker import Speaker
from llmctl.errors import UserError
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render_prompt

MOST_SAMPLES = 16
_COMMON = {
    "model", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options", "max_tokens", "user", "logprobs",
    "top_k", "min_p", "repetition_penalty", "metadata", "store",
}  # fmt: skip
_CHAT = _COMMON | {"messages", "max_completion_tokens"}
_COMPLETION = _COMMON | {"prompt", "echo"}
# Settings that may be sent as long as they ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, None), "presence_penalty": (0, None), "logit_bias": ({}, None), "tools": ([], None),
    "tool_choice": ("none", "auto", None), "top_logprobs": (0, None), "response_format": ({"type": "text"}, None),
    "best_of": (1, None), "suffix": ("", None), "parallel_tool_calls": (True, False, None),
    "service_tier": ("auto", None),
}  # fmt: skip


@dataclass
class Ask:
    """What a body asks for: `n` samples after each of `prompts` (token ids)."""

    prompts: list[list[int]]
    sampling: Sampling
    n: int
    stream: bool
    usage: bool
    logprobs: bool
    messages: list[dict[str, Any]] = field(default_factory=list)
    echo: list[str] = field(default_factory=list)


def body_of(data: bytes) -> dict[str, Any]:
    """The JSON object of a body. HttpError where it is none."""
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as e:
        raise HttpError(400, f"the body is not JSON: {e}", "invalid_json") from None
    if not isinstance(found, dict):
        raise HttpError(400, "the body should be a JSON object", "invalid_json")
    return found


def chat_ask(body: dict[str, Any], speaker: Speaker, config: ChatConfig) -> Ask:
    """`/v1/chat/completions`. HttpError names what is wrong with the body."""
    _check_keys(body, _CHAT, speaker)
    if not speaker.chats:
        raise HttpError(
            400,
            f"{speaker.name} is a base model and has no chat format; use /v1/completions",
            "not_a_chat_model",
            "model",
        )
    messages = _messages(body.get("messages"))
    if config.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": config.system}, *messages]
    try:
        prompt = render_prompt(messages, speaker.tokenizer)
    except UserError as e:
        raise HttpError(400, e.message(), "invalid_value", "messages") from None
    ask = _ask(body, [prompt], speaker, config, config.max_new_tokens, "max_completion_tokens")
    ask.messages = messages
    return ask


def completion_ask(body: dict[str, Any], speaker: Speaker, config: ChatConfig) -> Ask:
    """`/v1/completions`: texts, or token ids as they are."""
    _check_keys(body, _COMPLETION, speaker)
    given = body.get("prompt", "")
    many = given if isinstance(given, list) and given and not _is_ids(given) else [given]
    tokenizer = speaker.tokenizer
    prompts = []
    for one in many:
        if isinstance(one, str):
            prompts.append([tokenizer.bos_id, *tokenizer.encode(one)])
        elif _is_ids(one) and all(0 <= i < tokenizer.vocab_size for i in one):
            prompts.append(one)
        else:
            raise HttpError(
                400, "the prompt should be a text, token ids, or a list of either", "invalid_value", "prompt"
            )
    ask = _ask(body, prompts, speaker, config, 16, "max_tokens")  # 16 is what OpenAI's clients expect
    if _flag(body, "echo"):
        ask.echo = [p if isinstance(p, str) else tokenizer.decode(p) for p in many]
    return ask


def _ask(
    body: dict[str, Any], prompts: list[list[int]], speaker: Speaker, config: ChatConfig, most: int, key: str
) -> Ask:
    n = _number(body, "n", 1, int, 1, MOST_SAMPLES)
    if len(prompts) * n > MOST_SAMPLES * 8:
        raise HttpError(400, f"at most {MOST_SAMPLES * 8} answers a request", "invalid_value", "prompt")
    wanted = _number(body, key, None, int, 1, 1 << 30) or _number(body, "max_tokens", None, int, 1, 1 << 30)
    longest = max(map(len, prompts))
    if longest + (wanted or 1) > speaker.context:
        asked = f"{longest:,} tokens of prompt and {wanted:,} of answer" if wanted else f"{longest:,} tokens of prompt"
        raise HttpError(
            400, f"the model's context holds {speaker.context:,} tokens; you asked for {asked}",
            "context_length_exceeded", "messages" if "messages" in body else "prompt",
        )  # fmt: skip
    options = body.get("stream_options") or {}
    return Ask(
        prompts,
        _sampling(body, config, wanted or most),
        n,
        _flag(body, "stream"),
        isinstance(options, dict) and bool(options.get("include_usage")),
        _flag(body, "logprobs") if "messages" in body else _number(body, "logprobs", None, int, 0, 5) is not None,
    )


def _sampling(body: dict[str, Any], config: ChatConfig, most: int) -> Sampling:
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise HttpError(400, "stop should be a text or up to four", "invalid_value", "stop")
    seed = _number(body, "seed", None, int, -(1 << 63), (1 << 63) - 1)
    return Sampling(
        max_new_tokens=most,
        temperature=_number(body, "temperature", config.temperature, float, 0, 100),
        top_k=_number(body, "top_k", config.top_k, int, 0, 1 << 30),
        top_p=_number(body, "top_p", config.top_p, float, 1e-9, 1),
        min_p=_number(body, "min_p", config.min_p, float, 0, 1),
        repetition_penalty=_number(body, "repetition_penalty", config.repetition_penalty, float, 0.01, 100),
        stop_strings=(*config.stop, *stops),
        seed=secrets.randbits(53) if seed is None else seed,
    )


def _check_keys(body: dict[str, Any], known: set[str], speaker: Speaker) -> None:
    for key, value in body.items():
        if key not in known and not (key in _NEUTRAL and value in _NEUTRAL[key]):
            raise HttpError(400, f"{key} is not supported by this server", "unsupported_parameter", key)
    model = body.get("model")
    if model not in (None, "", speaker.name):
        raise HttpError(
            404, f"there is no model {str(model)[:100]!r}; this server has {speaker.name!r}", "model_not_found", "model"
        )


def _messages(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given:
        raise HttpError(400, "messages should be a list with at least one message", "invalid_value", "messages")
    found = []
    for i, m in enumerate(given):
        where = f"messages[{i}]"
        role = m.get("role") if isinstance(m, dict) else None
        role = "system" if role == "developer" else role
        if role not in ("system", "user", "assistant"):
            raise HttpError(400, f"{where}: the role should be system, user or assistant", "invalid_value", where)
        found.append({"role": role, "content": _content(m.get("content"), where)})
    return found


def _content(given: Any, where: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and all(
        isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in given
    ):
        return "".join(p["text"] for p in given)
    raise HttpError(400, f"{where}: the content should be text; this model reads nothing else", "invalid_value", where)


def _number(body: dict[str, Any], key: str, default: Any, kind: type, low: float, high: float) -> Any:
    value = body.get(key)
    if value is None:
        return default
    if (
        isinstance(value, bool)
        or not isinstance(value, int if kind is int else (int, float))
        or not low <= value <= high
    ):
        what = "a whole number" if kind is int else "a number"
        raise HttpError(400, f"{key} should be {what} between {low:g} and {high:g}", "invalid_value", key)
    return kind(value)


def _flag(body: dict[str, Any], key: str) -> bool:
    if body.get(key) not in (None, True, False):
        raise HttpError(400, f"{key} should be true or false", "invalid_value", key)
    return bool(body.get(key))


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    )


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
