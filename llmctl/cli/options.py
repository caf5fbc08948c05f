"""The options that every command shares, said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

WorkspaceOption = Annotated[
    Optional[Path],  # noqa: UP045 - Typer reads this on 3.10
    typer.Option(
        "-w", "--workspace", help="The workspace folder [$LLMCTL_WORKSPACE, else ./workspace].", metavar="DIR"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Errors and data only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", hidden=True)]

_COMMON: dict[str, tuple[Any, Any]] = {
    "workspace": (WorkspaceOption, None),
    "json_mode": (JsonOption, False),
    "quiet": (QuietOption, False),
    "debug": (DebugOption, False),
}
_STAGE: dict[str, tuple[Any, Any]] = {
    "out": (
        Annotated[str | None, typer.Option("-o", "--out", help="The name of what is made.", metavar="NAME")],
        None,
    ),
    "recipe": (
        Annotated[
            str | None,
            typer.Option("-r", "--recipe", help="Take this stage's settings from a recipe.", metavar="FILE"),
        ],
        None,
    ),
    "sets": (
        Annotated[
            list[str] | None,
            typer.Option("-s", "--set", help="Change one setting; repeatable.", metavar="KEY.SUB=VALUE"),
        ],
        None,
    ),
    "dry_run": (
        Annotated[bool, typer.Option("--dry-run", help="Show the settings and the plan; make nothing.")],
        False,
    ),
    "overwrite": (Annotated[bool, typer.Option("--overwrite", help="Make it again where it is there already.")], False),
}
_DATA: dict[str, tuple[Any, Any]] = {
    "workers": (
        Annotated[int | None, typer.Option("--workers", help="Processes; 0 is one a core.", metavar="N")],
        None,
    ),
    "engine": (Annotated[str | None, typer.Option("--engine", help="local or ray.", metavar="NAME")], None),
}


@dataclass
class Common:
    """What the shared options said."""

    workspace: Path | None = None
    json_mode: bool = False
    quiet: bool = False
    debug: bool = False
    out: str | None = None
    recipe: str | None = None
    sets: list[str] = field(default_factory=list)
    dry_run: bool = False
    overwrite: bool = False


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A workspace command: `function(common, ...)` and the shared options behind its own."""

    def call(common: Common, own: dict[str, Any]) -> None:
        function(common, **own)

    return _extended(function, call, dict(_COMMON))


def stage_command(
    name: str, data: bool = False
) -> Callable[[Callable[..., dict[str, Any] | None]], Callable[..., None]]:
    """A stage: `function(common, ...)` gives its settings as typed, or None where it has done the work itself.

    `data` adds --workers and --engine. A setting that is None was not typed.
    """

    def decorate(function: Callable[..., dict[str, Any] | None]) -> Callable[..., None]:
        def call(common: Common, own: dict[str, Any]) -> None:
            extra = {k: own.pop(k) for k in _DATA if k in own}
            settings = function(common, **own)
            if settings is None:
                return
            typed = {**settings, **extra}
            from llmctl.cli.stages import run_stage

            run_stage(name, {k: v for k, v in typed.items() if v is not None}, common)

        return _extended(function, call, {**(_DATA if data else {}), **_STAGE, **_COMMON})

    return decorate


def _extended(
    function: Callable[..., Any], call: Callable[[Common, dict[str, Any]], None], options: dict[str, tuple[Any, Any]]
) -> Callable[..., None]:
    """`function` without its first parameter and with `options` behind its own, as Typer will see it."""

    @functools.wraps(function)
    def wrapper(**given: Any) -> None:
        common = Common(**{k: given.pop(k) for k in list(given) if k in Common.__dataclass_fields__ and k in options})
        common.sets = list(common.sets or [])
        call(common, given)

    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    parameters += [
        inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for k, (kind, default) in options.items()
    ]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    return wrapper
