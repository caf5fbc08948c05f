"""`llmctl`: the commands in the order of the lifecycle, and what becomes of their errors.

Exit codes: 0 done; 1 a defect of ours; 2 the person can mend it; 3 a bound was missed (eval --fail-below); 130
interrupted, progress saved.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from llmctl import __version__
from llmctl.cli import chat, crawl, doctor, export, filter, init, ls, pretrain, rl, rm, run, sft, show, synth, tokenize
from llmctl.cli import eval as eval_
from llmctl.cli.help import FirstPage
from llmctl.errors import Interrupted, Missed, UserError

_LIFECYCLE = "The lifecycle, in order"
_WORKSPACE = "The workspace"

app = typer.Typer(
    name="llmctl",
    cls=FirstPage,
    help="From raw web pages to a chat model you trained yourself, one command a stage.\n\n"
    "Begin with: llmctl run quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"llmctl {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


for _name, _function in (
    ("crawl", crawl.crawl),
    ("filter", filter.filter_),
    ("tokenize", tokenize.tokenize),
    ("pretrain", pretrain.pretrain),
    ("synth", synth.synth),
    ("sft", sft.sft),
    ("rm", rm.rm),
    ("rl", rl.rl),
    ("chat", chat.chat),
    ("eval", eval_.eval_),
):
    app.command(_name, rich_help_panel=_LIFECYCLE)(_function)
for _name, _function in (
    ("run", run.run),
    ("ls", ls.ls),
    ("show", show.show),
    ("export", export.export),
    ("init", init.init),
    ("doctor", doctor.doctor),
):
    app.command(_name, rich_help_panel=_WORKSPACE)(_function)


def main(arguments: list[str] | None = None) -> None:
    """The command's entry: runs it and exits with the code that the outcome deserves."""
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminated)
    _share_the_cores()
    sys.exit(_run(arguments, debug))


def _share_the_cores() -> None:
    """Have threads that wait for one another sleep soon, unless the person has said how they should wait.

    By default they spin for milliseconds, which takes the time from the very thread that they wait for where another
    program is at work too: two threads on two busy cores trained 150 tokens a second, with this 1,060. It has to be
    said before PyTorch loads OpenMP.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _run(arguments: list[str] | None, debug: bool) -> int:
    try:
        code = app(args=arguments, prog_name="llmctl", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # what Typer makes of a KeyboardInterrupt
            return _interrupted()
        return int(code) if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader of our pipe has left: no complaint, and none from the interpreter's exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as e:
        if debug:
            raise
        return _say(f"error: {e.message()}", 2)
    except Missed as e:
        return _say("\n".join(f"missed: {line}" for line in e.lines), 3)
    except (Interrupted, KeyboardInterrupt) as e:
        return _interrupted(e)
    except Exception as e:
        return _other(e, debug)


def _interrupted(e: BaseException | None = None) -> int:
    how = e.how if isinstance(e, Interrupted) else "run the same command again to go on"
    return _say(f"interrupted, progress saved: {how}", 130)


def _other(e: Exception, debug: bool) -> int:
    """Usage errors come from Typer, whose exceptions know their own message; anything else is a defect of ours."""
    if hasattr(e, "format_message"):
        context: Any = getattr(e, "ctx", None)
        message = e.format_message()
        if not message:  # no arguments: the help has been shown
            return 0
        return _say(f"error: {message}\n  see: {context.command_path if context else 'llmctl'} --help", 2)
    if type(e).__name__ == "Abort":  # older Typers' word for a KeyboardInterrupt
        return _interrupted()
    if type(e).__name__ == "Exit":
        return int(getattr(e, "exit_code", 0))
    if debug:
        raise e
    if isinstance(e, OSError) and e.errno == 28:
        return _say(f"error: the disk is full\n  make room, then run the same command again ({e.filename or ''})", 2)
    return _say(f"defect: {type(e).__name__}: {e}\n  this is a mistake in llmctl; --debug shows where", 1)


def _say(text: str, code: int) -> int:
    if int(os.environ.get("RANK", "0")):  # torchrun's first process says it for all
        return code
    print(text, file=sys.stderr, flush=True)
    return code


def _terminated(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
