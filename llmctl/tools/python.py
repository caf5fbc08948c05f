"""The Python tool: run what a model wrote in a process of its own, and give back what a REPL would show.

What holds it: a fresh interpreter without site packages or environment, in a scratch folder; limits on time, memory,
output, file size, files and processes; on Linux, namespaces without a network; an audit hook that refuses sockets,
processes, signals, native code and files elsewhere. It keeps a model's mistakes and clumsy attacks from doing harm. It
is not a security boundary against a determined attacker: docs/tools.md says what is not stopped.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 2.0
_MEGABYTES = 512
_OUTPUT = 2000
_CODE = 1 << 15  # bytes; below a pipe's buffer, so that sending it never waits for the child
_START = 5.0  # seconds on top before the parent steps in: the child's own timer starts after the interpreter has
_CHILD = Path(__file__).with_name("sandbox.py")
_TIMERS = (signal.SIGALRM, signal.SIGXCPU)


def run_python(code: str, seconds: float = SECONDS, megabytes: int = _MEGABYTES, output: int = _OUTPUT) -> str:
    """What `code` prints, then the repr of its last expression if that is not None; an error as one line.

    At most `output` characters come back, about `seconds` later at most. Nothing that the code does raises here.
    """
    data = code.encode("utf-8", "replace")
    if len(data) > _CODE:
        return f"ValueError: the code is longer than {_CODE} bytes"
    with tempfile.TemporaryDirectory(prefix="llmctl-python-", ignore_cleanup_errors=True) as scratch:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_CHILD), str(seconds), str(megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            env={},
            start_new_session=True,
        )
        try:
            said, ended = _talk(child, data, time.monotonic() + seconds + _START, output * 4)
        finally:
            _kill(child)
    text = said.decode("utf-8", "replace").rstrip()
    return _bounded("\n".join(filter(None, (text, _fault(child.returncode, ended, seconds)))), output)


def _talk(child: subprocess.Popen[bytes], code: bytes, deadline: float, most: int) -> tuple[bytes, bool]:
    """Send the code; read till the end, `most` bytes or the deadline. True: it came to its end."""
    assert child.stdin and child.stdout
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(code)
        child.stdin.close()
    said = b""
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while len(said) <= most:
            if not ready.select(max(0.0, deadline - time.monotonic())):
                return said, False
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=max(0.0, deadline - time.monotonic()))
                return said, child.returncode is not None
            said += data
    return said, True


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the whole process group: the child may have started others."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()


def _fault(code: int, ended: bool, seconds: float) -> str:
    """What to say of a child that did not leave by itself, unless it was stopped for the length of what it said."""
    number = -code if code < 0 else code - 128
    if not ended or number in _TIMERS:
        return f"TimeoutError: it ran longer than {seconds:g} seconds"
    if code == 0 or code == -signal.SIGKILL:
        return ""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
    return f"SystemError: the process ended with {name}"


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
