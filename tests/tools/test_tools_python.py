"""The Python tool: what a REPL would show, and nothing of what a model should not be able to do."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmctl.tools.python import run_python


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1 + 1", "2"),
        ('print("strawberry".count("r"))', "3"),
        ('"strawberry"[::-1]', "'yrrebwarts'"),
        ("x = 3\ny = 4\nx * y", "12"),
        ("print('a'); print('b'); 5", "a\nb\n5"),
        ("x = 1", ""),
        ("None", ""),
        ("", ""),
        ("# nothing", ""),
        ("max(9.11, 9.9)", "9.9"),
        ("def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nf(15)", "610"),
        ("import math, re, json, random, statistics, datetime, fractions\nmath.e", "2.718281828459045"),
        ("open('a.txt', 'w').write('hi')\nopen('a.txt').read()", "'hi'"),
        ("'naïve 😀'", "'naïve 😀'"),
        ("import sys; sys.exit(3)", ""),
        ("if __name__ == '__main__':\n    print('main')", "main"),
    ],
)  # fmt: skip
def test_shows_what_a_repl_would(code: str, shown: str) -> None:
    assert run_python(code) == shown


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("print('so far'); x", "so far\nNameError: name 'x' is not defined"),
        ("raise ValueError('one\\ntwo')", "ValueError: one"),
        ("(", "SyntaxError: "),
        ("def f(): f()\nf()", "RecursionError: "),
        ("'x' * 10**10", "MemoryError"),
        ("class E(Exception):\n    def __str__(self): 1/0\nraise E", "E"),
        ("input()", "EOFError: "),
        ("import os; os._exit(7)", "SystemError: the process ended with exit code 7"),
    ],
)
def test_errors_are_one_line(code: str, error: str) -> None:
    assert run_python(code).startswith(error)


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "sum(range(10**12))",  # a loop in C, deaf to Python's own signals
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.alarm(0)\nwhile True: pass",
        "import time\ntry:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)",
    ],
)
def test_endless_code_is_ended(code: str) -> None:
    begun = time.monotonic()
    assert "TimeoutError: it ran longer than 0.5 seconds" in run_python(code, seconds=0.5)
    assert time.monotonic() - begun < 30


def test_what_was_said_before_the_end_of_time_is_kept() -> None:
    assert run_python("print('ab')\nwhile True: pass", seconds=0.5).startswith("ab\nTimeoutError")


def test_output_and_code_are_bounded() -> None:
    said = run_python("while True: print('x' * 1000)", output=100)
    assert said == ("x" * 99 + "…")
    assert run_python("#" * 100_000).startswith("ValueError: the code is longer")


ATTEMPTS = {
    "read a file": "open('/etc/passwd').read()",
    "read by descriptor": "import os; os.read(os.open('/etc/passwd', os.O_RDONLY), 100)",
    "read through a link": "import os; os.symlink('/etc/passwd', 'p'); open('p').read()",
    "read through the parent folder": "open('../../etc/passwd').read()",
    "list the root": "import os; os.listdir('/')",
    "read the environment of another": "open('/proc/1/environ').read()",
    "read its own memory map": "open('/proc/self/maps').read()",
    "write elsewhere": "open('{victim}', 'w').write('gone')",
    "write with pathlib": "import pathlib; pathlib.Path('{victim}').write_text('gone')",
    "remove": "import os; os.remove('{victim}')",
    "rename": "import os; os.rename('{victim}', 'mine')",
    "remove a tree": "import shutil; shutil.rmtree('{folder}')",
    "truncate": "import os; os.truncate('{victim}', 0)",
    "change the mode": "import os; os.chmod('{victim}', 0)",
    "write into the library": "import os; open(os.path.dirname(os.__file__) + '/evil.py', 'w')",
    "a shell": "import os; os.system('echo gone > {victim}')",
    "a pipe to a shell": "import os; os.popen('echo gone > {victim}').read()",
    "a subprocess": "import subprocess; subprocess.run(['rm', '{victim}'])",
    "a fork": "import os; os.fork()",
    "a fork bomb": "import os\nwhile True: os.fork()",
    "exec": "import os; os.execv('/bin/rm', ['rm', '{victim}'])",
    "spawn": "import os; os.posix_spawn('/bin/rm', ['rm', '{victim}'], {{}})",
    "the C module behind subprocess": "import _posixsubprocess; print('in')",
    "multiprocessing": "import multiprocessing; multiprocessing.Process(target=print).start()",
    "a socket": "import socket; socket.create_connection(('127.0.0.1', {port}), 1); print('in')",
    "a raw socket module": "import _socket; print('in')",
    "a web page": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=1); print('in')",
    "native code": "import ctypes; ctypes.CDLL(None).getpid(); print('in')",
    "native code by the back door": "import _ctypes; print('in')",
    "native code left in memory": "import sys; sys.modules['ctypes'].CDLL(None); print('in')",
    "a signal to the parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL); print('in')",
    "a signal to all": "import os; os.kill(-1, 9); print('in')",
    "a signal to the group": "import os; os.killpg(0, 9); print('in')",
    "raise the limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); print('in')",
    "replace builtins under the hook": "import builtins; builtins.isinstance = id\nopen('/etc/passwd').read()",
    "replace the path functions": "import os\nos.path.realpath = lambda p: os.getcwd()\nopen('/etc/passwd').read()",
    "the environment": "import os; os.environ['SECRET_OF_THE_TEST']; print('in')",
}  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempts_fail_and_harm_nothing(attempt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    victim = tmp_path / "victim"
    victim.write_text("whole")
    code = ATTEMPTS[attempt].format(victim=victim, folder=tmp_path, port=1)
    said = run_python(code)
    assert victim.read_text() == "whole"
    assert "root:" not in said and said != "in" and not said.endswith("\nin")
    assert "Error" in said or said == "", said
    assert os.getppid() > 0


def test_a_full_disk_is_not_to_be_had() -> None:
    assert "Error" in run_python("open('a', 'wb').write(b'x' * 10**8)")
    assert "Error" in run_python("for i in range(10**6): open(str(i), 'w').close()")


def test_many_at_once_do_not_mix() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run_python, [f"{i} * {i}" for i in range(12)])) == [str(i * i) for i in range(12)]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_python("open('a', 'w').write('x')")
    assert list(tmp_path.iterdir()) == []
