"""Roll-outs by vLLM (https://docs.vllm.ai), in the process that trains: what `Engine.generate` gives, by other means.

Token ids in, token ids and their log-probabilities out; text is made from the ids here, as for our own engine. The
weights are those of the trainer at every call: they are handed over in memory, under their published names, through
vLLM's `apply_model`, which needs its engine in this process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.generate.control import ToolRunner, closed_call, result_ids, stop_ids, tool_tokens
from llmctl.generate.engine import Engine, Sample, Sampling
from llmctl.generate.precision import choose_dtype
from llmctl.generate.sampling import row_keys
from llmctl.generate.text import first_stop
from llmctl.model import names
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.rl.config import RlConfig
from llmctl.train import distributed

_RAM = Path("/dev/shm")  # where there is one, the weights need not go over a disk on their way


def open_engine(config: RlConfig, model: Transformer, tokenizer: Tokenizer) -> Engine | VllmEngine:
    """The engine that the settings name, writing with the present weights of `model`. UserError without vLLM."""
    if config.rollouts.engine == "vllm":
        return VllmEngine(model, tokenizer, config.train.precision, config.rollouts.vllm_memory)
    return Engine(model, tokenizer, config.train.precision)


@dataclass
class _Row:
    """A reply as it grows, a request to vLLM at a time: more than one where a tool is called."""

    prompt: list[int]
    key: int
    limit: int
    ids: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = ""
    requests: int = 0

    def take(self, completion: Any) -> None:
        """Append what vLLM wrote: its `CompletionOutput`."""
        ids = list(completion.token_ids)
        self.ids += ids
        self.logprobs += [float(of[i].logprob) for i, of in zip(ids, completion.logprobs, strict=True)]
        self.forced += [False] * len(ids)
        self.requests += 1
        self.finish = "stop" if completion.finish_reason == "stop" else "length"

    def put_in(self, ids: list[int]) -> None:
        """Append what is not the model's own, as far as there is room, and go on after it."""
        ids = ids[: self.limit - len(self.ids)]
        self.ids += ids
        self.logprobs += [0.0] * len(ids)
        self.forced += [True] * len(ids)
        self.finish = "" if len(self.ids) < self.limit else "length"


class VllmEngine:
    """Generates with `model` and its `tokenizer` by vLLM, which takes the part `memory` of the GPU for its weights and
    its cache. The noise of a reply depends on the seed, its prompt's number and its own; another batch can still round
    otherwise, so samples do not repeat bit for bit.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, precision: str, memory: float) -> None:
        self.model, self.tokenizer = model, tokenizer
        # The engine has to be in this process, for the weights; vLLM reads this when it is imported.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        try:
            self.vllm = import_module("vllm")
        except ImportError as e:
            raise UserError(
                f"vLLM is not installed ({e})", "rollouts.engine",
                "pip install 'llmctl-toolkit[vllm]' where there is a GPU, or leave it at llmctl",
            ) from e  # fmt: skip
        dtype = choose_dtype(precision, next(model.parameters()).device)
        # torchrun's processes have an engine each, which joins their group (TRL's colocate mode does the same).
        several = {"distributed_executor_backend": "external_launcher"} if distributed.size() > 1 else {}
        with tempfile.TemporaryDirectory(dir=_RAM if os.access(_RAM, os.W_OK) else None) as folder:
            save_model(folder, model, tokenizer)
            self.llm = self.vllm.LLM(
                model=folder,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=model.config.context,
                gpu_memory_utilization=memory,
                enable_prefix_caching=True,  # a prompt is run once for its group
                logprobs_mode="processed_logprobs",  # at the temperature that is sampled at, as the trainer scores
                seed=0,
                **several,
            )

    def generate(
        self,
        prompts: list[list[int]],
        sampling: Sampling,
        n: int = 1,
        tools: ToolRunner | None = None,
        batch_size: int = 64,
    ) -> list[list[Sample]]:
        """`n` samples of each prompt, in order; vLLM itself chooses how many run at once."""
        context = self.model.config.context
        numbers = [(p + sampling.first, s) for p in range(len(prompts)) for s in range(n)]
        keys = row_keys(sampling.seed, numbers).tolist() if numbers else []
        rows = [
            _Row(prompts[i // n], key, min(sampling.max_new_tokens, context - len(prompts[i // n])))
            for i, key in enumerate(keys)
        ]
        self._synchronise()
        calls = tool_tokens(self.tokenizer) if tools else {}
        live = [r for r in rows if r.limit > 0]
        while live:
            self._write(live, sampling, list(calls))
            if tools:
                self._run_tools([r for r in live if r.finish == "stop" and r.ids[-1] in calls], tools, calls)
            live = [r for r in live if not r.finish]
        found = [self._sample(r, sampling) for r in rows]
        return [found[p * n : (p + 1) * n] for p in range(len(prompts))]

    def _synchronise(self) -> None:
        """Hand the trainer's weights over; what was cached of the old ones is forgotten."""
        weights = names.to_published({k: v.detach() for k, v in self.model.state_dict().items()},
                                     self.model.config.family)  # fmt: skip
        self.llm.apply_model(lambda model: model.load_weights(iter(weights.items())) and None)
        self.llm.reset_prefix_cache()

    def _write(self, rows: Sequence[_Row], sampling: Sampling, closing: list[int]) -> None:
        """Let each row go on to its end, or to the end of a tool call (a token of `closing`)."""
        requests = [{"prompt_token_ids": r.prompt + r.ids} for r in rows]
        how = [self._how(r, sampling, closing) for r in rows]
        for row, output in zip(rows, self.llm.generate(requests, how, use_tqdm=False), strict=True):
            row.take(output.outputs[0])

    def _how(self, row: _Row, sampling: Sampling, closing: list[int]) -> Any:
        return self.vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=row.limit - len(row.ids),
            seed=(row.key + row.requests) & 0x7FFFFFFF,  # another one after a tool: a seed begins its noise anew
            logprobs=0,  # of the token that was sampled, and no others
            stop=list(sampling.stop_strings) or None,
            stop_token_ids=[*stop_ids(self.tokenizer, sampling), *closing],
            ignore_eos=True,  # what ends a reply is said here, not in the folder
            detokenize=bool(sampling.stop_strings),
        )

    def _run_tools(self, rows: list[_Row], tools: ToolRunner, calls: dict[int, tuple[str, int]]) -> None:
        """Run the calls that the rows have just closed, all at once, and put the results in."""
        asked = [closed_call(self.tokenizer, calls, r.ids) for r in rows]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            results = list(pool.map(lambda call: tools(*call) if call else None, asked))
        for row, result in zip(rows, results, strict=True):
            row.put_in([] if result is None else result_ids(self.tokenizer, result))

    def _sample(self, row: _Row, sampling: Sampling) -> Sample:
        """As our own engine says it: the text without what ended it."""
        ended = row.finish == "stop" and row.ids[-1] in stop_ids(self.tokenizer, sampling)
        text = self.tokenizer.decode(row.ids[:-1] if ended else row.ids)
        cut = first_stop(text, sampling.stop_strings)
        text = text if cut is None else text[:cut]
        return Sample(row.ids, row.forced, row.logprobs, row.finish or "length", text)
