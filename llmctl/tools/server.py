"""A process that stands inside finished walls and forks a child for each call: `tools.python` starts it once.

To start an interpreter and to build walls around it took 40 ms a call, to fork one that stands within them takes 5. For
each call there are two processes: a supervisor, outside the child's process table, which has the clock and ends the
child, and the child, which runs the code and nothing else. Standard library only: nothing else is within the walls.

The caller sends one byte with two descriptors for each call: where the code's output goes, and a socket on which it
sends the request and gets the end of it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmctl.tools import isolation, sandbox, seccomp

SCRATCH_MEGABYTES, SCRATCH_FILES = 16, 1000
_PRELOADED = (
    "math", "cmath", "re", "random", "statistics", "datetime", "time", "calendar", "fractions", "decimal",
    "numbers", "itertools", "functools", "operator", "collections", "heapq", "bisect", "string", "textwrap",
    "copy", "enum", "dataclasses", "typing", "abc", "contextlib", "io", "os", "sys", "array", "struct",
    "hashlib", "zlib", "bz2", "lzma", "base64", "binascii", "secrets", "csv", "pprint", "unicodedata",
    "difflib", "traceback", "types", "inspect", "ast", "tempfile", "pathlib", "shutil", "uuid",
)  # fmt: skip


def main(channel: int, forced: bool) -> None:
    """Serve calls that come over the socket `channel` until its other end closes.

    The first message says which walls stand, as JSON. Where they cannot be built, that is all, unless `forced`.
    """
    library = [p for p in sys.path if Path(p).is_dir()]
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.collect()
    gc.freeze()  # so that no child's collection touches, and thereby copies, the memory it shares with this process
    calls = socket.socket(fileno=channel)
    why = _build_walls(library)
    calls.sendall(json.dumps({"isolated": not why, "why": why}).encode() + b"\n")
    if why and not forced:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors leave no zombies
    while True:
        try:
            byte, descriptors, _, _ = socket.recv_fds(calls, 1, 2)
        except ConnectionError:
            return
        if not byte:
            return
        if len(descriptors) == 2 and _fork() == 0:
            calls.close()
            _supervise(descriptors[0], socket.socket(fileno=descriptors[1]), library, not why)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork() -> int:
    """The child's number, or -1 where there cannot be one now: the caller sees its socket close."""
    try:
        return os.fork()
    except OSError:
        return -1


def _build_walls(library: list[str]) -> str:
    """Why they cannot be built; empty where they stand, tried out to the last one in a process of its own."""
    if sys.platform != "linux":
        return f"there are no namespaces on {sys.platform}"
    try:
        isolation.enter(library)
    except Exception as e:
        return str(e)
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            isolation.new_process_table()
            if os.fork() == 0:
                _confine()
                os.write(writing, b"ok")
        except Exception as e:
            os.write(writing, str(e).encode()[:500])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()  # ends when both have ended
    os.wait()
    return "" if said == "ok" else said or "a process in the sandbox does not come up"


def _confine() -> None:
    isolation.fresh_scratch(SCRATCH_MEGABYTES, SCRATCH_FILES)
    isolation.drop_rights(seccomp.program())


def _supervise(out: int, control: socket.socket, library: list[str], isolated: bool) -> None:
    """Run one call and say how it ended. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size = int.from_bytes(_exactly(control, 4), "big")
        request: dict[str, Any] = json.loads(_exactly(control, size))
        scratch = None if isolated else tempfile.mkdtemp(prefix="llmctl-python-")
        if isolated:
            isolation.new_process_table()
        child = os.fork()
        if child == 0:
            _child(out, request, library, scratch)
        os.close(out)
        late = not _ends(child, control, time.monotonic() + float(request["seconds"]))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        control.sendall(json.dumps({"code": code, "late": late}).encode())
    except BaseException:
        pass  # the caller sees its socket close without an answer
    finally:
        os._exit(0)


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def _ends(child: int, control: socket.socket, deadline: float) -> bool:
    """Wait for the child. False where its time is over, or the caller has hung up."""
    if not hasattr(os, "pidfd_open"):  # not Linux: ask again and again
        while time.monotonic() < deadline and not select.select([control], [], [], 0.005)[0]:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
        return False
    exit_of_child = os.pidfd_open(child)
    wait = max(0.0, deadline - time.monotonic())
    return exit_of_child in select.select([exit_of_child, control.fileno()], [], [], wait)[0]


def _child(out: int, request: dict[str, Any], library: list[str], scratch: str | None) -> None:
    """Close every door, then run the code. Never returns."""
    status = 1
    try:
        os.dup2(out, 1)
        os.closerange(3, 1024)
        # A new object, since the server's own was opened on another kind of file.
        said = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(said, "utf-8", "backslashreplace", line_buffering=True)
        sys.path[:] = library
        if scratch:
            os.chdir(scratch)
            _what_works()
        sandbox.set_limits(float(request["seconds"]), int(request["megabytes"]))
        if not scratch:
            _confine()
        sandbox.forget_modules()
        if request["hook"]:
            sandbox.guard(library)
        sandbox.run(str(request["code"]))
        status = 0
    except BaseException as e:  # a defect of ours, in which case nothing has been run
        os.write(1, f"the sandbox failed: {sandbox.one_line(e)}\n".encode())
    finally:
        os._exit(status)


def _what_works() -> None:
    """Forced to run without walls: the system-call filter often can be had all the same."""
    try:
        isolation.die_with_parent()
        isolation.drop_rights(seccomp.program())
    except Exception:
        return
