"""Kernels compiled at first use, as `torch.compile` does it, and kept: a wheel cannot know the machine it is for.

A file is compiled once for each state of the sources and each compiler, into `~/.cache/llmctl/native` (or below
`XDG_CACHE_HOME`). `LLMCTL_NATIVE=0` turns the kernels off. Most need AMX; those of `_PLAIN` need the compiler alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_FLAGS = ["-O3", "-march=native", "-mamx-tile", "-mamx-bf16", "-fopenmp", "-std=c++17", "-shared", "-fPIC"]
_PLAIN = {"bpe": ["-O2", "-std=c++17", "-shared", "-fPIC"]}  # standard C++ without headers of ours, and their flags
_NEEDED = {"amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512vl", "avx512_bf16"}
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)


@cache
def library(name: str) -> ctypes.CDLL | None:
    """The functions of `name`.cpp, or None where they cannot be had (`why_not` says why)."""
    if why_not(name) is not None:
        return None
    try:
        return ctypes.CDLL(str(_compiled(name)))
    except (OSError, subprocess.SubprocessError):
        return None  # a read-only home, a compiler that is older than the processor: PyTorch's ways are taken


def is_made(name: str) -> bool:
    """Whether `library(name)` would find it compiled."""
    try:
        return why_not(name) is None and _place(name).exists()
    except (OSError, subprocess.SubprocessError):
        return False


@cache
def why_not(name: str | None = None) -> str | None:
    """Why the kernel `name`, or by default those that need AMX, is off, in words; None where it is on."""
    amx = name not in _PLAIN
    if os.environ.get("LLMCTL_NATIVE", "1") == "0":
        return "LLMCTL_NATIVE=0"
    if amx and not _processor() >= _NEEDED:
        return "they need a processor with AMX"
    if compiler() is None:
        return "they need a C++ compiler (g++ or clang++)"
    # Linux gives the tile registers to processes that ask, and threads that are started later inherit them.
    if amx and ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) != 0:
        return "the kernel does not grant AMX"
    return None


def _processor() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def compiler() -> str | None:
    """The path of the C++ compiler that is taken: $CXX, g++ or clang++."""
    named = os.environ.get("CXX")
    return next((found for name in (named, "g++", "clang++") if name and (found := shutil.which(name))), None)


def _compiled(name: str) -> Path:
    made = _place(name)
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place and then moved there: another process may be doing the same.
        with tempfile.TemporaryDirectory(dir=made.parent) as room:
            part = Path(room) / made.name
            command = [str(compiler()), *_PLAIN.get(name, _FLAGS), str(_HERE / f"{name}.cpp"), "-o", str(part)]
            subprocess.run(command, capture_output=True, check=True, timeout=300)
            part.replace(made)
    return made


def _place(name: str) -> Path:
    """Where the compiled file of these sources, this compiler and this processor is or will be."""
    chosen = compiler()
    assert chosen is not None
    flags, headers = _PLAIN.get(name, _FLAGS), [] if name in _PLAIN else _HERE.glob("*.hpp")
    version = subprocess.run([chosen, "--version"], capture_output=True, check=True, timeout=60).stdout
    state = hashlib.sha256(version + " ".join([*flags, *sorted(_processor())]).encode())
    for source in sorted([_HERE / f"{name}.cpp", *headers]):
        state.update(source.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmctl" / "native"
    return folder / f"{name}-{state.hexdigest()[:16]}.so"
