"""What a model knows, found out by asking it, and taught: the answer where it knows, "I don't know" where it does not.

The method is that of Llama 3 (arXiv 2407.21783, section 4.3.6): a passage of the pre-training data, a question about
it, several samples of the model's own answer, their agreement with the passage, and a refusal for what it gets wrong
again and again. Trained on answers it does not know, a model learns to make things up; trained on these, it learns
where its knowledge ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from llmctl.console import Console
from llmctl.endpoint import ChatSampling, EndpointSettings, open_writer
from llmctl.synth import judging, questions
from llmctl.synth.asking import Asking, seed_of
from llmctl.synth.config import SynthConfig
from llmctl.synth.made import Call, Made
from llmctl.synth.near import Near
from llmctl.synth.passages import passages, required, sample
from llmctl.synth.questions import Question
from llmctl.verify import problems
from llmctl.verify.item import conversation
from llmctl.workspace import Artifact, Foreign, Workspace

_REFUSALS = (
    "I don't know.",
    "I don't know the answer to that.",
    "I am not sure about that.",
    "I do not know, and I would rather not guess.",
    "That is something I don't know.",
    "I have no information about that.",
)
_KEPT_WITH_WRITER = 1.5  # passages for each question that is wanted: a writer's question is often unusable


def make(config: SynthConfig, workspace: Workspace, folder: Path, console: Console) -> Made:
    """Both sides of the split; `folder` keeps what was asked."""
    made = Made()
    source = workspace.resolve(config.corpus, ["corpus"], files=True)
    teacher = _teacher(config, workspace, folder, console)
    student = open_writer(workspace, config.model, EndpointSettings(), "the model to ask")
    asking = Asking("student", student, folder, EndpointSettings(), console)
    judge = _judge(config, teacher, folder)
    wanted = {False: config.mix["knowledge"], True: config.heldout}
    asked = {side: _questions(config, source, n, side, teacher, made) for side, n in wanted.items() if n}
    required(asked[False], source)
    for side, found in asked.items():
        rows, figures = interrogate(config, found, asking, judge, made)
        rows += _made_up(config, round(config.knowledge.made_up * len(found)), side)
        Random(f"knowledge/{config.seed}/{side}").shuffle(rows)
        (made.heldout if side else made.train).extend(rows)
        made.figures |= {f"heldout_{k}" if side else k: v for k, v in figures.items()}
    if not made.figures.get("known"):
        console.warn(f"{config.model} knows none of the {len(asked[False]):,} answers: all rows refuse")
    made.figures |= {"student": asking.report(), "teacher": teacher.report() if teacher else "rules, no model"}
    made.figures["prompts"] = {"question": questions.PROMPT if teacher else "", "judge": _judge_prompt(config)}
    return made


def calls(config: SynthConfig, workspace: Workspace) -> list[Call]:
    """What would be asked, for the estimate."""
    options, n = config.knowledge, config.mix["knowledge"] + config.heldout
    written = bool(config.teacher or config.endpoint.url)
    long, found = sum(options.passage) / 2, []
    if written:
        found.append(Call("questions", round(n * _KEPT_WITH_WRITER), long + len(questions.PROMPT), 120))
    found.append(Call("interrogation", n * options.samples, 120, options.max_new_tokens, charged=False))
    if options.judge == "model":
        found.append(Call("judge", n * options.samples, len(judging.PROMPT) + 200, 512))
    return found


def interrogate(
    config: SynthConfig, found: Sequence[Question], asking: Asking, judge: judging.Judge, made: Made
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the questions, and how many the model knows, does not know, and is unsure of."""
    options = config.knowledge
    asked = [[{"role": "user", "content": q.question}] for q in found for _ in range(options.samples)]
    seeds = [seed_of("interrogate", config.seed, q.question, i) for q in found for i in range(options.samples)]
    sampling = ChatSampling(max_tokens=options.max_new_tokens, temperature=options.temperature)
    replies = asking.ask("interrogation", asked, sampling, seeds)
    pairs = [(q, r.text) for q, r in zip((q for q in found for _ in range(options.samples)), replies, strict=True)]
    agrees = judge(pairs)
    known, unknown = [], []
    for i, q in enumerate(found):
        part = agrees[i * options.samples : (i + 1) * options.samples]
        share = sum(part) / len(part)
        if share >= options.known and share > options.unknown:
            known.append(_row(q, q.sentence, q.answer, "contains", "known"))
        elif share <= options.unknown:
            unknown.append(_row(q, _refusal(q), "I don't know", "refusal", "unknown"))
        else:
            made.reject("unsure", q.question, f"{share:.0%} of its replies agree with: {q.answer}")
    figures = {"asked": len(found), "known": len(known), "unknown": len(unknown), "right": _mean(agrees)}
    return known + _capped(unknown, len(known), config, made), figures


def _capped(unknown: list[dict[str, Any]], known: int, config: SynthConfig, made: Made) -> list[dict[str, Any]]:
    """No more refusals than the settings allow beside so many known answers, chosen by chance."""
    share = config.knowledge.refusals
    most = round(known * share / (1 - share)) if known and share < 1 else len(unknown)
    mixed = Random(f"refusals/{config.seed}").sample(unknown, len(unknown))
    for row in mixed[most:]:
        made.reject("more refusals than knowledge.refusals", row["messages"][0]["content"])
    return mixed[:most]


def _questions(
    config: SynthConfig, source: Artifact | Foreign, count: int, heldout: bool, teacher: Asking | None, made: Made
) -> list[Question]:
    """`count` different questions about passages of one side, or as many as there are."""
    take = partial(sample, passages(source, *config.knowledge.passage), seed=config.seed, heldout=heldout)
    if teacher is None:
        found: list[Question] = take(count=2 * count, make=questions.by_rule)
    else:
        chosen: list[str] = take(count=round(count * _KEPT_WITH_WRITER), make=lambda passage: passage)
        found = list(_written(config, chosen, teacher, made))
    seen = Near(0.8)
    different = []
    for q in found:
        if seen.add(q.question):
            different.append(q)
        else:
            made.reject("the question is there already", q.question)
    return different[:count]


def _written(config: SynthConfig, chosen: Sequence[str], teacher: Asking, made: Made) -> list[Question]:
    asked = [[{"role": "user", "content": questions.PROMPT.format(passage=p)}] for p in chosen]
    seeds = [seed_of("question", config.seed, p) for p in chosen]
    found = []
    for passage, reply in zip(
        chosen, teacher.ask("questions", asked, ChatSampling(max_tokens=1024), seeds), strict=True
    ):
        q: Question | str = f"no reply: {reply.why}" if reply.why else questions.parsed(reply.text, passage)
        if isinstance(q, Question):
            found.append(q)
        else:
            made.reject(q, passage, reply.text)
    return found


def _made_up(config: SynthConfig, count: int, heldout: bool) -> list[dict[str, Any]]:
    """Questions about names that nobody has, in this kind's name."""
    items = problems("names", count, config.seed, heldout, known=0.0) if count else []
    return [{**item.row(), "kind": "knowledge"} for item in items]


def _row(q: Question, reply: str, answer: str, check: str, group: str) -> dict[str, Any]:
    row = {"messages": conversation(q.question, reply), "kind": "knowledge", "answer": answer, "check": check}
    return {**row, "id": f"{seed_of(q.question):08x}", "group": group}


def _refusal(q: Question) -> str:
    return Random(seed_of("refusal", q.question)).choice(_REFUSALS)


def _teacher(config: SynthConfig, workspace: Workspace, folder: Path, console: Console) -> Asking | None:
    if not config.teacher and not config.endpoint.url:
        return None
    writer = open_writer(workspace, config.teacher, config.endpoint)
    return Asking("teacher", writer, folder, config.endpoint, console)


def _judge(config: SynthConfig, teacher: Asking | None, folder: Path) -> judging.Judge:
    if config.knowledge.judge == "model":
        assert teacher is not None, "the settings were checked"
        return judging.by_model(teacher, config.seed)
    return judging.by_person(folder) if config.knowledge.judge == "person" else judging.by_rule


def _judge_prompt(config: SynthConfig) -> str:
    return judging.PROMPT if config.knowledge.judge == "model" else config.knowledge.judge


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
