"""Scores become rewards: mean 0 and standard deviation 1 over the replies of a reference (arXiv 1909.08593, 2.2).

Only differences of scores are learned, so their zero and, from model to model, their unit are arbitrary. The weights
stay as they were trained, so that sigmoid(difference) remains the chance to be preferred; gain and bias are kept beside
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np

from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render_prompt
from llmctl.model.folder import load_model
from llmctl.model.transformer import RewardModel
from llmctl.rm.config import RmConfig
from llmctl.rm.data import Ranking
from llmctl.rm.measure import Scores, score_all
from llmctl.train.device import best_device


def gain_and_bias(scores: Scores) -> tuple[float, float]:
    """(gain, bias) with which gain * score + bias has mean 0 and standard deviation 1; gain 1 where none differ."""
    values = [s for some in scores for s in some]
    gain = 1 / (pstdev(values) or 1.0)
    return gain, -gain * fmean(values)


def reference_scores(config: RmConfig, model: RewardModel, path: Path, rankings: Sequence[Ranking]) -> Scores:
    """What `model` gives to answers of the model in `path`, the one it was trained from, to the prompts of `rankings`.

    They are sampled once; every prompt has its turn before one has a second. Prompts that fill the context have none.
    """
    writer, tokenizer = load_model(path)
    header = render_prompt([], tokenizer)
    prompts = list({tuple(r.replies[0][: r.prompt].tolist()): None for r in rankings})[: config.scale.samples]
    starts = [[*prompt, *header] for prompt in prompts]
    sampling = Sampling(config.scale.max_new_tokens, config.scale.temperature, seed=config.seed)
    engine = Engine(writer.to(best_device()), tokenizer, config.train.precision)
    found = engine.generate(starts, sampling, n=ceil(config.scale.samples / len(starts)))
    answers = [
        Ranking((np.array([*start, *sample.ids], dtype=np.int32),), (0,), len(start))
        for samples in zip(*found, strict=True)
        for start, sample in zip(starts, samples, strict=True)
        if sample.ids
    ][: config.scale.samples]
    return score_all(model, answers, config.train.precision, config.micro_tokens) if answers else []
