"""The Python tool: run what a model wrote, away from everything, and give back what a REPL would show.

The code runs in a process of its own with no network, no files but a scratch folder in memory and Python's library to
read, no other process in sight, no rights, a hundred harmless system calls, and limits on time, memory, files and
output. docs/tools.md says what that stops and what not. Where the machine cannot give it, the tool is off unless
forced.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

SECONDS = 2.0
FORCE = "LLMCTL_PYTHON_UNSAFE"
_MEGABYTES = 512
_OUTPUT = 2000
_CODE = 1 << 15  # bytes
_GRACE = 5.0  # seconds on top before this side hangs up: the clock that counts is the supervisor's
_TIMERS = (signal.SIGXCPU,)
_SERVE = "import sys; sys.path.append(sys.argv[1]); from llmctl.tools.server import main; sys.path.pop(); main({}, {})"


def run_python(
    code: str, seconds: float = SECONDS, megabytes: int = _MEGABYTES, output: int = _OUTPUT, hook: bool = True
) -> str:
    """What `code` prints, then the repr of its last expression if that is not None; an error as one line.

    At most `output` characters come back, about `seconds` later at most. Nothing that the code does raises here. Where
    this machine cannot isolate it, nothing is run and the result says so, unless the variable LLMCTL_PYTHON_UNSAFE is
    set. `hook=False` leaves the kernel's walls alone to hold the code; that is for tests.
    """
    data = code.encode("utf-8", "replace")
    if len(data) > _CODE:
        return f"ValueError: the code is longer than {_CODE} bytes"
    why = why_off()
    if why:
        return f"the python tool is off: {why}"
    wanted = {"code": data.decode(), "seconds": seconds, "megabytes": megabytes, "hook": hook}
    for _ in range(2):  # a server that was killed is started anew, once
        try:
            said, end = _call(_server(), wanted, output * 4)
            break
        except OSError:
            _stop()
    else:
        return "SystemError: the sandbox does not answer"
    text = said.decode("utf-8", "replace").rstrip()
    return _bounded("\n".join(filter(None, (text, _fault(end, seconds)))), output)


def why_off() -> str:
    """Why the tool is off on this machine, in one line; empty where code can be isolated, or running it is forced."""
    return "" if forced() or _server().isolated else f"{_server().why}. To run code all the same, set {FORCE}=1"


def forced() -> bool:
    """Whether a person said to run code even where it cannot be isolated."""
    return os.environ.get(FORCE, "") not in ("", "0")


def isolated() -> bool:
    """Whether all walls stand on this machine."""
    return _server().isolated


class _Server:
    """The process that forks a child for each call; any number of threads may call at once."""

    def __init__(self, force: bool) -> None:
        self.channel, theirs = socket.socketpair()
        self.force = force
        root = str(Path(__file__).parents[2])
        arguments = ["-I", "-S", "-B", "-X", "utf8", "-c", _SERVE.format(theirs.fileno(), force), root]
        with Path(os.devnull).open("rb") as nothing:  # to read only; subprocess.DEVNULL could be written, too
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=nothing,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={},
                start_new_session=True,
            )
        theirs.close()
        said = _line(self.channel)
        self.isolated = bool(said.get("isolated"))
        self.why = str(said.get("why", "the sandbox does not start"))

    def close(self) -> None:
        """End the process; calls under way end with it."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_running: tuple[int, _Server] | None = None  # the process that started it, and it


def _server() -> _Server:
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid() or _running[1].force != forced():
            _running = (os.getpid(), _Server(forced()))
        return _running[1]


@atexit.register
def _stop() -> None:
    global _running
    with _lock:
        if _running and _running[0] == os.getpid():
            _running[1].close()
        _running = None


def _line(channel: socket.socket) -> dict[str, Any]:
    """The server's first words; empty where it died before saying them."""
    with channel.makefile("rb") as lines:
        said = lines.readline()
    return dict(json.loads(said)) if said else {}


def _call(server: _Server, wanted: dict[str, Any], most: int) -> tuple[bytes, dict[str, Any]]:
    """(what the code printed, at most some more than `most` bytes of it; how it ended). OSError: the server is gone."""
    reading, writing = os.pipe()
    mine, theirs = socket.socketpair()
    with os.fdopen(reading, "rb", 0) as out, mine:
        try:
            socket.send_fds(server.channel, [b"c"], [writing, theirs.fileno()])
        finally:
            os.close(writing)
            theirs.close()
        deadline = time.monotonic() + float(wanted["seconds"]) + _GRACE
        request = json.dumps(wanted).encode()
        mine.sendall(len(request).to_bytes(4, "big") + request)
        said, complete = _read(out.fileno(), most, deadline)
        if not complete:
            return said, {"code": 0}  # it was stopped for the length of what it said
        mine.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            end = mine.recv(1000)
        except TimeoutError:
            return said, {"late": True}
    if not end:
        raise ConnectionError("the supervisor ended without a word")
    return said, json.loads(end)


def _read(pipe: int, most: int, deadline: float) -> tuple[bytes, bool]:
    """Read till the end, `most` bytes or the deadline. True: there was no more than `most`."""
    said = b""
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while len(said) <= most:
            if not ready.select(max(0.0, deadline - time.monotonic())):
                return said, True
            data = os.read(pipe, 1 << 16)
            if not data:
                return said, True
            said += data
    return said, False


def _fault(end: dict[str, Any], seconds: float) -> str:
    """What to say of code that did not come to its end by itself."""
    code = int(end.get("code", 0))
    if end.get("late") or -code in _TIMERS:
        return f"TimeoutError: it ran longer than {seconds:g} seconds"
    if code == 0:
        return ""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
    return f"SystemError: the process ended with {name}"


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
