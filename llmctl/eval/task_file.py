"""A task is a YAML file, in the keys of lm-evaluation-harness: where its rows are, how a row becomes a prompt, what
counts as right. Files of the harness that call no Python functions run as they are.

    task: rivers
    dataset_path: json
    dataset_kwargs: {data_files: {test: rivers.jsonl}}
    output_type: multiple_choice
    test_split: test
    doc_to_text: "Question: {{question}}\\nAnswer:"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{label}}"

Every mistake in a file is reported at once, with its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llmctl.errors import UserError, UserErrors, nearest
from llmctl.eval.templates import template_problem
from llmctl.recipe import Settings
from llmctl.recipe.check import problems
from llmctl.recipe.source import Source, parse

FOLDER = Path(__file__).with_name("tasks")
Template = str | int | list[Any]

METRICS: dict[str, tuple[str, ...]] = {
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "exact_match", "acc_mutual_info"),
    "generate_until": ("exact_match", "pass_at_k"),
    "loglikelihood": ("acc", "perplexity"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}
# What the harness measures where a file names no metric.
_DEFAULT = {
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
}
# Functions of the harness that are built in here under the same names.
_FUNCTIONS = ("pass_at_k", "build_predictions", "build_predictions_instruct")
_FUNCTION = re.compile(r"!function\s+([\w.]+)")
_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")


class Metric(Settings):
    """One entry of `metric_list`."""

    metric: str
    """Its name: `acc`, `acc_norm`, `exact_match`, `pass_at_k`, `perplexity`, `bits_per_byte`, ..."""
    aggregation: str | None = None
    """How the items' values become one: each metric here has its own, so this may only repeat it."""
    higher_is_better: bool | None = None
    """What every metric here knows of itself."""
    ignore_case: bool = False
    """`exact_match`: upper and lower case are the same."""
    ignore_punctuation: bool = False
    """`exact_match`: without the ASCII punctuation marks."""
    ignore_numbers: bool = False
    """`exact_match`: without the digits."""
    regexes_to_ignore: list[str] = []
    """`exact_match`: what matches is taken out of both sides, one after the other."""
    k: int | list[int] = 1
    """`pass_at_k`: how many tries there are; several give several scores. `repeats` has to be as large at least."""


class FilterStep(Settings):
    """One step from the model's text to what is compared."""

    function: Literal[
        "regex", "take_first", "take_first_k", "majority_vote", "remove_whitespace", "lowercase", "uppercase", "custom"
    ]
    """`regex` extracts, the next three choose among several replies, `custom` calls `filter_fn`."""
    regex_pattern: str = r"#### (\-?[0-9\.\,]+)"
    """`regex`: the pattern; of its groups the first that is not empty counts."""
    group_select: int = 0
    """`regex`: which match: 0 the first, -1 the last."""
    fallback: str = "[invalid]"
    """`regex`: what stands for no match."""
    k: int = 1
    """`take_first_k`: how many."""
    filter_fn: Literal["build_predictions", "build_predictions_instruct"] = "build_predictions"
    """`custom`: HumanEval's: the prompt and the reply as one program."""


class FilterList(Settings):
    """A named chain of steps. Each chain gives a score of its own."""

    name: str
    """The score is called after it."""
    filter: list[FilterStep] = Field(min_length=1)
    """Its steps, in order."""


class FewshotConfig(Settings):
    """How examples are chosen."""

    sampler: Literal["default", "first_n"] = "default"
    """`default` draws others for every item, `first_n` takes the first ones of the split for all."""
    split: str | None = None
    """As `fewshot_split`."""
    samples: list[dict[str, Any]] | None = None
    """The examples themselves, where no split has them."""
    doc_to_text: Template | None = None
    """For the examples, where it is another than the item's."""
    doc_to_target: Template | None = None
    """For the examples, where it is another than the item's."""
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    """For the examples, where it is another than the item's."""
    target_delimiter: str | None = None
    """For the examples, where it is another than the item's."""
    fewshot_delimiter: str | None = None
    """Between the examples."""


class GenerationKwargs(Settings):
    """How replies are written."""

    until: str | list[str] | None = None
    """What ends a reply. Default: `fewshot_delimiter`."""
    max_gen_toks: int = Field(256, ge=1)
    """The longest reply."""
    max_new_tokens: int | None = Field(None, ge=1)
    """As `max_gen_toks`."""
    do_sample: bool | None = None
    """False takes the likeliest token each time."""
    temperature: float = Field(0.0, ge=0)
    """Above 0 replies are drawn."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability."""
    top_k: int = Field(0, ge=0)
    """Draw from this many tokens; 0: from all."""


class TaskFile(Settings):
    """What a task file may say."""

    task: str = Field(pattern=r"^[\w.-]+$")
    """Its name: the scores are called after it."""
    output_type: Literal["multiple_choice", "generate_until", "loglikelihood", "loglikelihood_rolling"] = (
        "generate_until"
    )
    """What the model does: rate choices, write a reply, rate one continuation, rate a whole text."""
    dataset_path: str
    """`json`, `csv`, `parquet` or `text` for `data_files`, or a data set of the Hugging Face hub."""
    dataset_name: str | None = None
    """The hub's name for a part of the data set."""
    dataset_kwargs: dict[str, Any] | None = None
    """`data_files`: a path, a list, or one of these by split, seen from the task file; else for the hub."""
    data_files: str | list[str] | dict[str, str | list[str]] | None = None
    """The same, shorter."""
    training_split: str | None = None
    """Examples are drawn from it where there is no `fewshot_split`."""
    validation_split: str | None = None
    """Asked where there is no `test_split`."""
    test_split: str | None = None
    """The rows that are asked."""
    fewshot_split: str | None = None
    """Where examples are drawn from."""
    doc_to_text: Template | None = None
    """The prompt: a column, or a Jinja2 template over the columns."""
    doc_to_target: Template | None = None
    """The right answer: its text, or the number of the right choice (from 0)."""
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    """The choices."""
    description: str = ""
    """Stands once before everything."""
    target_delimiter: str = " "
    """Between a prompt and its answer."""
    fewshot_delimiter: str = "\n\n"
    """Behind each example."""
    gen_prefix: str | None = None
    """The beginning of the reply, which is put into the model's mouth."""
    num_fewshot: int | None = Field(None, ge=0)
    """How many examples stand before the item."""
    fewshot_config: FewshotConfig = FewshotConfig()
    """How they are chosen."""
    metric_list: list[Metric] | None = Field(None, min_length=1)
    """What is measured; the first one is the task's score. Default: the harness's for the output type."""
    generation_kwargs: GenerationKwargs = GenerationKwargs()
    """How replies are written."""
    repeats: int = Field(1, ge=1)
    """Replies to each item."""
    filter_list: list[FilterList] | None = Field(None, min_length=1)
    """From the reply to what is compared."""
    task_alias: str | None = None
    """Not used here."""
    tag: str | list[str] | None = None
    """Not used here."""
    group: str | list[str] | None = None
    """Not used here."""
    should_decontaminate: bool = False
    """Not used here: every task's items are looked for in the training data."""
    doc_to_decontamination_query: str | None = None
    """What is looked for in the training data, where it is not the prompt."""
    unsafe_code: bool = False
    """Not used here: programs run in the sandbox."""
    metadata: dict[str, Any] | None = None
    """Kept with the scores."""


@dataclass(frozen=True)
class Task:
    """A checked task file: its settings, where it lies, and its text as it was read."""

    settings: TaskFile
    path: Path
    text: str = field(repr=False)

    @property
    def name(self) -> str:
        """What its scores are called."""
        return self.settings.task

    @property
    def metrics(self) -> list[Metric]:
        """What is measured, the task's score first."""
        default = [Metric(metric=name) for name in _DEFAULT[self.settings.output_type]]
        return self.settings.metric_list or default

    @property
    def until(self) -> list[str]:
        """What ends a reply."""
        until = self.settings.generation_kwargs.until
        found = self.settings.fewshot_delimiter if until is None else until
        return [found] if isinstance(found, str) else list(found)


@cache
def shipped() -> dict[str, Path]:
    """The tasks that come along, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def is_task(name: str) -> bool:
    """Whether `name` is a task file, or a task that comes along."""
    return name.endswith((".yaml", ".yml")) or name in shipped()


def read_task(name: str) -> Task:
    """The task of a file, or one that comes along. UserError with everything that is wrong with it."""
    path = shipped().get(name, Path(name))
    sources: list[Source] = []
    wrong: list[UserError] = []
    data = _merged(path, sources, wrong)
    source = _Sources(str(path), data, sources)
    wrong += problems(TaskFile, data, source)
    wrong += _more_problems(data, source)
    if wrong:
        raise wrong[0] if len(wrong) == 1 else UserErrors(wrong)
    text = "\n".join(Path(s.name).read_text(encoding="utf-8") for s in sources)
    return Task(TaskFile.model_validate(data), path, text)


class _Sources(Source):
    """A file and what it includes: a key's line is in the file that says it last."""

    def __init__(self, name: str, data: Any, sources: list[Source]) -> None:
        super().__init__(name, data)
        self.sources = sources

    def line(self, path: tuple[str | int, ...]) -> int | None:
        """In whichever file it is."""
        return self._of(path).line(path)

    def where(self, path: tuple[str | int, ...]) -> str:
        """`file:line` of the file that says it."""
        return self._of(path).where(path)

    def _of(self, path: tuple[str | int, ...]) -> Source:
        return next((s for s in self.sources if path and path[:1] in s.lines), self.sources[0])


def _merged(path: Path, sources: list[Source], wrong: list[UserError]) -> dict[str, Any]:
    """The keys of a file over those of the file that it includes."""
    if any(Path(s.name) == path for s in sources):
        raise UserError("the files include each other", str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot read the task: {e.strerror}", str(path), "check the path") from e
    except UnicodeDecodeError as e:
        raise UserError("it is not UTF-8 text", str(path)) from e
    for number, line in enumerate(text.splitlines(), 1):
        for name in _FUNCTION.findall(line.partition(" #")[0]):
            if name.rpartition(".")[2] not in _FUNCTIONS:
                fix = "write it as a template, or let lm-evaluation-harness run the task: --harness " + path.stem
                wrong.append(UserError(f"it calls the Python function {name!r}", f"{path}:{number}", fix))
    # A function that nobody calls reads as its bare name.
    source = parse(_FUNCTION.sub(lambda m: m[1].rpartition(".")[2], text), str(path))
    if not isinstance(source.data, dict):
        raise UserError("a task file is a mapping of keys to values", str(path))
    sources.append(source)
    mine = {k: v for k, v in source.data.items() if k != "include" and v is not None}
    include = source.data.get("include")
    if include is None:
        return mine
    return {**_merged(path.parent / str(include), sources, wrong), **mine}


def _more_problems(data: dict[str, Any], source: Source) -> list[UserError]:
    """What the schema cannot see: keys that need each other, templates, patterns, metrics."""
    kind = str(data.get("output_type", "generate_until"))
    needs = ["doc_to_target"] + ["doc_to_text"] * (kind != "loglikelihood_rolling")
    needs += ["doc_to_choice"] * (kind == "multiple_choice")
    found = [
        UserError(f"{key!r} is missing", source.where(()), f"output_type {kind} needs it")
        for key in needs
        if key not in data
    ]
    for key in _TEMPLATES:
        if isinstance(data.get(key), str) and (why := template_problem(data[key])):
            found.append(UserError(f"{key} is no template: {why}", source.where((key,))))
    known = METRICS.get(kind, ())
    for n, metric in enumerate(_list(data.get("metric_list"))):
        name = metric.get("metric") if isinstance(metric, dict) else None
        if isinstance(name, str) and known and name not in known:
            at = source.where(("metric_list", n, "metric"))
            found.append(
                UserError(f"no metric {name!r} of {kind}{nearest(name, known)}", at, "metrics: " + ", ".join(known))
            )
    for n, chain in enumerate(_list(data.get("filter_list"))):
        for m, step in enumerate(_list(chain.get("filter")) if isinstance(chain, dict) else []):
            pattern = step.get("regex_pattern") if isinstance(step, dict) else None
            if isinstance(pattern, str) and (why := _pattern_problem(pattern)):
                at = source.where(("filter_list", n, "filter", m, "regex_pattern"))
                found.append(UserError(f"regex_pattern is no pattern: {why}", at))
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _pattern_problem(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as e:
        return str(e)
    return ""
