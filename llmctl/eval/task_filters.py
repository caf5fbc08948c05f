"""From the replies to an item to what is compared: the steps of `filter_list`, as lm-evaluation-harness has them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llmctl.eval.task_data import Row
from llmctl.eval.task_file import FilterList, FilterStep

FIRST = FilterList(name="none", filter=[FilterStep(function="take_first")])


def filtered(replies: Sequence[str], chain: FilterList, row: Row) -> list[str]:
    """What is left of the `replies` to one item; one text where the chain chooses."""
    found = list(replies)
    for step in chain.filter:
        found = _step(found, step, row)
    return found


def _step(replies: list[str], step: FilterStep, row: Row) -> list[str]:
    if step.function == "regex":
        return [_extracted(reply, step) for reply in replies]
    if step.function == "take_first":
        return replies[:1]
    if step.function == "take_first_k":
        return replies[: step.k]
    if step.function == "majority_vote":
        return [Counter(replies).most_common(1)[0][0]]
    if step.function == "remove_whitespace":
        return [reply.strip() for reply in replies]
    if step.function in ("lowercase", "uppercase"):
        return [reply.lower() if step.function == "lowercase" else reply.upper() for reply in replies]
    instruct = step.filter_fn == "build_predictions_instruct"
    return [str(row.get("prompt", "")) + (reply.partition("```")[0] if instruct else reply) for reply in replies]


def _extracted(reply: str, step: FilterStep) -> str:
    """The chosen match; of its groups the first that is not empty."""
    found = re.findall(step.regex_pattern, reply)
    try:
        match = found[step.group_select]
    except IndexError:
        return step.fallback
    if isinstance(match, tuple):
        match = next((group for group in match if group), step.fallback)
    return str(match).strip()
