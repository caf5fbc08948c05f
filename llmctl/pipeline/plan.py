"""A recipe read and checked as a whole: every mistake of every step is found before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, UserErrors, nearest
from llmctl.pipeline.registry import STAGES, Stage
from llmctl.recipe import StageSettings
from llmctl.recipe.check import problems
from llmctl.recipe.overrides import put
from llmctl.recipe.source import KeyPath, Source, parse, read
from llmctl.workspace import Workspace

Input = tuple[str, Sequence[str], bool]  # the name as typed, the kinds it may have, whether it may be a file
_TOP = ("name", "description", "seed", "steps")


@dataclass
class Step:
    """One step of a recipe, its settings as typed, and where it stands."""

    stage: Stage
    data: dict[str, Any]
    at: KeyPath


@dataclass
class Recipe:
    """A recipe whose steps are known stages; `source` knows the lines."""

    name: str
    steps: list[Step]
    source: Source

    def configs(self) -> list[tuple[Stage, StageSettings]]:
        """The typed settings of every step; only after `check` found nothing."""
        return [(s.stage, s.stage.config.model_validate(s.data)) for s in self.steps]


def locate(name: str) -> Path:
    """The file of a recipe named by its path, or by the name of one that ships with llmctl."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    raise UserError(
        f"no recipe {name!r}{nearest(name, shipped)}", fix=f"give a YAML file, or one of: {', '.join(shipped)}"
    )


def shipped_recipes() -> dict[str, Path]:
    """The recipes in the installed package, or those of the checkout it runs from."""
    inside = Path(str(resources.files("llmctl"))) / "recipes"
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))}


def load(path: Path, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe. UserError(s) for what is wrong with its outline: unknown keys, unknown stages, no steps."""
    source = read(path)
    data = source.data
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list) or not data["steps"]:
        raise UserError("a recipe needs a list of steps", str(path), "steps:\n    - stage: crawl\n      source: [demo]")
    wrong = [
        UserError(f"unknown key {k!r}{nearest(k, _TOP)}", source.where((k,)), "valid keys: " + ", ".join(_TOP))
        for k in data
        if k not in _TOP
    ]
    steps = []
    for i, item in enumerate(data["steps"]):
        at: KeyPath = ("steps", i)
        name = item.get("stage") if isinstance(item, dict) else None
        if name not in STAGES:
            what = "a step needs a stage" if name is None else f"no stage {name!r}{nearest(str(name), STAGES)}"
            wrong.append(UserError(what, source.where((*at, "stage")), "stages: " + ", ".join(STAGES)))
            continue
        settings = {str(k): v for k, v in item.items() if k != "stage"}
        settings.setdefault("seed", data.get("seed", 0))
        steps.append(Step(STAGES[str(name)], settings, at))
    wrong += _override(steps, sets)
    if wrong:
        raise UserErrors(wrong)
    return Recipe(str(data.get("name") or path.stem), steps, source)


def check(recipe: Recipe, workspace: Workspace) -> None:
    """Raise one error that lists every mistake of every step: keys, types, and inputs that nothing makes."""
    wrong: list[UserError] = []
    made: dict[tuple[str, str], int] = {}
    for i, step in enumerate(recipe.steps):
        bad = problems(step.stage.config, step.data, recipe.source, step.at)
        if bad:
            wrong += sorted([*bad, *_missing_inputs(recipe, step, _typed(step), made, workspace)], key=_line)
            _note_unchecked(step, made, i)
            continue
        config = step.stage.config.model_validate(step.data)
        wrong += _missing_inputs(recipe, step, config.inputs(), made, workspace)
        for kind in (config.made_kind, *step.stage.also_makes):
            if (kind, config.out) in made:
                where = recipe.source.where((*step.at, "out"))
                wrong.append(UserError(f"two steps make the {kind} {config.out!r}", where, "give one another `out`"))
            made[(kind, config.out)] = i
    if wrong:
        raise UserErrors(wrong)


def _note_unchecked(step: Step, made: dict[tuple[str, str], int], i: int) -> None:
    """A step with a mistake still makes something: the steps after it should not be blamed for its absence."""
    config = step.stage.config
    out = str(step.data.get("out") or config.model_fields["out"].default)
    kinds = [getattr(config, "makes", None) or "conversations", *step.stage.also_makes]
    if step.stage.name == "synth":
        kinds = ["conversations", "comparisons"]
    for kind in kinds:
        made[(kind, out)] = i


def _typed(step: Step) -> list[Input]:
    """The inputs of a step whose settings have mistakes, as far as they are readable."""
    found: list[Input] = []
    for name, mark in step.stage.config.input_fields():
        held = step.data.get(name)
        found += [
            (v, mark.kinds, mark.files) for v in (held if isinstance(held, list) else [held]) if isinstance(v, str)
        ]
    return [(v, kinds, files) for v, kinds, files in found if v]


def _line(problem: UserError) -> int:
    return int(problem.where.rpartition(":")[2] or 0)


def _missing_inputs(
    recipe: Recipe, step: Step, inputs: list[Input], made: dict[tuple[str, str], int], workspace: Workspace
) -> list[UserError]:
    wrong = []
    for value, kinds, files in inputs:
        if any((k, value.rpartition("/")[2]) in made for k in kinds):
            continue
        try:
            workspace.resolve(value, kinds, files)
        except UserError as e:
            name = _typed_in(step, value)
            near = nearest(value, [n for k, n in made if k in kinds])
            what = f"{name}: nothing makes {' or '.join(kinds)} {value!r}{near}" if near else f"{name}: {e.what}"
            wrong.append(UserError(what, recipe.source.where((*step.at, name)), "" if near else e.fix))
    return wrong


def _typed_in(step: Step, value: str) -> str:
    """The key of a step that holds the input `value`."""
    for key, held in step.data.items():
        if held == value or (isinstance(held, list) and value in held):
            return key
    return "inputs"


def _override(steps: list[Step], sets: Sequence[str]) -> list[UserError]:
    """`--set NAME.key=value`, where NAME is a stage or the `out` of a step."""
    wrong = []
    for text in sets:
        target, _, rest = text.partition(".")
        key, sign, value = rest.partition("=")
        named = [s for s in steps if target in (s.stage.name, s.data.get("out"))]
        if not sign or not key or not named:
            names = sorted({s.stage.name for s in steps})
            fix = "write --set STAGE.key=value with one of: " + ", ".join(names)
            wrong.append(UserError(f"--set {text!r} names no step{nearest(target, names)}", fix=fix))
            continue
        for step in named:
            put(step.data, key.strip(), parse(value, f"--set {text}").data)
    return wrong
