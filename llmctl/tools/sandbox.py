"""What runs in the process of one call: limits, the audit hook, and the code as a REPL would run it.

Nothing here is what holds an attacker; that is `isolation` and `seccomp`. The hook stops honest code early, with words
that a model can learn from, and native code before it can try the kernel.
"""

from __future__ import annotations

import _ast
import os
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

_FILES = 64  # opened for writing in one run
_MODULES = frozenset(
    ("socket", "_socket", "ssl", "_ssl", "subprocess", "_posixsubprocess", "multiprocessing", "_multiprocessing")
    + ("ctypes", "_ctypes", "pty", "asyncio", "llmctl")
)
_REFUSED = (
    "socket.", "subprocess.", "ctypes.", "pty.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "os.kill", "os.chmod", "os.chown", "os.chflags", "os.link", "os.symlink", "os.chdir", "os.fchdir", "os.chroot",
    "os.mount", "os.setxattr", "os.utime", "os.putenv", "signal.pthread_kill", "mmap.", "fcntl.", "resource.",
    "sys.addaudithook", "gc.get_", "syslog.", "webbrowser.", "winreg.", "urllib.", "ftplib.", "http.", "smtplib.",
)  # fmt: skip
_LOOKING = frozenset(("os.listdir", "os.scandir"))
_ON_PATHS = _LOOKING | {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.walk"}


def set_limits(seconds: float, megabytes: int) -> None:
    """Hard limits, which the code cannot lift again."""
    limits = {
        "RLIMIT_CPU": int(seconds) + 2,
        "RLIMIT_AS": megabytes << 20,
        "RLIMIT_FSIZE": 1 << 20,
        "RLIMIT_NOFILE": 32,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
    }
    for name, limit in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (AttributeError, ValueError, OSError):
            continue  # this system has no such limit; the supervisor's clock and the bounded pipe remain


def forget_modules() -> None:
    """Take what code should not find lying about out of `sys.modules`."""
    for name in list(sys.modules):
        if name.partition(".")[0] in _MODULES:
            del sys.modules[name]


def guard(library: Sequence[str]) -> None:
    """Refuse, from here on and for ever, what an answer to a question never needs: a hook cannot be taken out again."""
    home = os.path.realpath(".")
    sys.addaudithook(_hook(home + os.sep, tuple(os.path.realpath(p) + os.sep for p in library)))


def _hook(home: str, library: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    # Everything is bound here: the code that runs later may replace builtins and this module's names.
    refused, modules, on_paths, looking, most = _REFUSED, _MODULES, _ON_PATHS, _LOOKING | {"open"}, _FILES
    real, writing, text, kinds = os.path.realpath, os.O_WRONLY | os.O_RDWR | os.O_CREAT, os.fsdecode, (str, bytes)
    no, instance, sep, opened = PermissionError, isinstance, os.sep, [0]

    def allowed(event: str, path: Any, flags: int) -> bool:
        if not instance(path, kinds):
            return True  # an open descriptor
        where = real(text(path)) + sep
        if where.startswith(home):
            opened[0] += flags & writing != 0
            return opened[0] <= most
        return event in looking and not flags & writing and where.startswith(library)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in on_paths:
            flags = args[2] if event == "open" and instance(args[2], int) else 0
            for path in args[:2] if event == "os.rename" else args[:1]:
                if not allowed(event, path, flags):
                    raise no("files outside the scratch folder are closed")
        elif event.startswith(refused) or (event == "import" and args[0].partition(".")[0] in modules):
            raise no("the sandbox does not allow " + (args[0] if event == "import" else event))

    return hook


def run(code: str) -> None:
    """Execute `code` as a REPL would: prints, then the repr of a last expression; an error as one line."""
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        tree: Any = compile(code, "<python>", "exec", 0x400)  # PyCF_ONLY_AST, without importing ast
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
        exec(compile(tree, "<python>", "exec"), space)
        if last is not None:
            value = eval(compile(_ast.Expression(last.value), "<python>", "eval"), space)
            if value is not None:
                print(repr(value))
    except SystemExit:
        pass
    except BaseException as e:
        print(one_line(e))
    sys.stdout.flush()


def one_line(error: BaseException) -> str:
    """`NameError: name 'x' is not defined`."""
    try:
        said = str(error).strip().split("\n")[0]
    except BaseException:
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
