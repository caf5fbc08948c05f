"""Calls of the python tool a second, against starting an interpreter for each call.

    python benchmarks/python_tool.py [--calls 500] [--threads 1 2 4]

The program is the smallest there is (`1 + 1`), so that what is measured is the tool. The fresh interpreter is a bare
one (`-I -S`) with no isolation at all: what a sandbox that starts a process for each call costs at least.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from llmctl.tools.python import isolated, run_python


def fresh(code: str) -> str:
    """The same answer from an interpreter started for it."""
    command = [sys.executable, "-I", "-S", "-c", f"print({code})"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def rate(run: Callable[[str], str], calls: int, threads: int) -> float:
    """Calls a second."""
    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        assert set(pool.map(run, ["1 + 1"] * calls)) == {"2"}
        return calls / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    begun = time.perf_counter()
    assert run_python("1 + 1") == "2"
    print(f"first call (the server starts): {time.perf_counter() - begun:.2f} s; isolated: {isolated()}")
    for threads in arguments.threads:
        tool = max(rate(run_python, arguments.calls, threads) for _ in range(3))
        other = rate(fresh, arguments.calls // 5, threads)
        print(f"{threads} threads: tool {tool:.0f} calls/s, fresh interpreter without isolation {other:.0f} calls/s")


if __name__ == "__main__":
    main()
