"""This machine, the dependencies and the workspace: what is well, what is slow, what is broken, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.native import build
from llmctl.pipeline.execute import human_bytes
from llmctl.tools.python import isolated, why_off
from llmctl.workspace import Workspace

_NEEDED = (
    "torch", "safetensors", "tokenizers", "numpy", "pydantic", "PyYAML", "typer", "rich", "pyarrow", "jinja2",
    "httpcore", "protego", "warcio", "trafilatura", "lxml_html_clean", "py3langid", "matplotlib", "datasets",
)  # fmt: skip
_LOW_DISK = 2 << 30


@dataclass
class Finding:
    """One line of the examination. `state` is good, slow, off or bad; `fix` says what to do about all but the first."""

    subject: str
    state: str
    what: str
    fix: str = ""


def examine(workspace: Workspace, deep: bool = False) -> list[Finding]:
    """Everything worth knowing before a long run."""
    return [*_python(), *_machine(workspace), *_torch(), _kernels(), sandbox(), *_workspace(workspace, deep)]


def show_findings(findings: list[Finding], console: Console) -> None:
    """The examination on stdout, a line each, what to do behind what is not well."""
    for f in findings:
        mark = {"good": "ok  ", "slow": "slow", "off": "off ", "bad": "BAD "}[f.state]
        console.print(f"{mark}  {f.subject:<12} {f.what}" + (f"\n{'':20}-> {f.fix}" if f.fix else ""))
    bad = sum(f.state == "bad" for f in findings)
    console.done("nothing is wrong" if not bad else f"{bad} to mend")


def _python() -> list[Finding]:
    version = sys.version.split()[0]
    found = [Finding("python", "good" if sys.version_info >= (3, 10) else "bad", f"{version} on {platform.platform()}",
                     "" if sys.version_info >= (3, 10) else "llmctl needs Python 3.10 or newer")]  # fmt: skip
    missing = []
    for package in _NEEDED:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        fix = f"{sys.executable} -m pip install {' '.join(missing)}"
        found.append(Finding("packages", "bad", f"not installed: {', '.join(missing)}", fix))
    else:
        found.append(Finding("packages", "good", f"all {len(_NEEDED)} there"))
    return found


def _machine(workspace: Workspace) -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    root = workspace.root if workspace.root.exists() else workspace.root.absolute().parent
    free = shutil.disk_usage(root if root.exists() else ".").free
    return [
        Finding("processor", "good", f"{os.cpu_count()} cores"),
        Finding("memory", "good", f"{human_bytes(memory.available)} free of {human_bytes(memory.total)}"),
        Finding("disk", "good" if free > _LOW_DISK else "bad", f"{human_bytes(free)} free for {workspace.root}",
                "" if free > _LOW_DISK else "make room, or choose another disk with -w"),
    ]  # fmt: skip


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as e:
        return [Finding("torch", "bad", f"it does not import: {e}", "reinstall torch")]
    found = [Finding("torch", "good", torch.__version__)]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return [*found, Finding("accelerator", "good", names)]
    rates: dict[Any, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        rates[dtype] = _matmul_rate(torch, dtype)
    bf16, fp32 = rates[torch.bfloat16] / 1e12, rates[torch.float32] / 1e12
    text = f"no GPU; matrix products run at {bf16:.2f} TFLOP/s in bf16, {fp32:.2f} in fp32"
    fast = bf16 > fp32
    return [*found, Finding("training", "good" if fast else "slow", text,
                            "" if fast else "bf16 brings nothing on this processor; training uses fp32")]  # fmt: skip


# What keeps users from making namespaces, the value that does, and what to type.
_SWITCHES = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=10000"),
)


def _kernels() -> Finding:
    """Whether the C++ kernels of training and generation can be had."""
    off = build.why_not()
    if off is None and build.library("layers") is None:
        off = f"{build.compiler()} does not compile them: is it older than the processor?"
    if off is None:
        return Finding("kernels", "good", "C++ for AMX, compiled on this machine")
    mendable = "compile" in off
    return Finding("kernels", "slow" if mendable else "off", off, "install a recent g++ or clang++" if mendable else "")


def sandbox(proc: Path = Path("/proc/sys"), root: Path = Path("/")) -> Finding:
    """Whether code that a model wrote can be run here, what stops it if not, and what to change."""
    subject = "python tool"
    if not (why := why_off()):
        safe = isolated()
        how = "code of a model runs isolated" if safe else "FORCED: code of a model runs without isolation"
        return Finding(subject, "good" if safe else "bad", how, "" if safe else "unset LLMCTL_PYTHON_UNSAFE")
    for name, value, fix in _SWITCHES:
        with suppress(OSError):
            if (proc / name).read_text().strip() == value:
                return Finding(subject, "off", why, fix)
    if any((root / name).exists() for name in (".dockerenv", "run/.containerenv")):
        return Finding(subject, "off", why, "start the container with --security-opt seccomp=unconfined")
    return Finding(subject, "off", why, "a Linux machine, virtual ones too, has it; docs/tools.md says more")


def _matmul_rate(torch: Any, dtype: Any) -> float:
    """FLOP/s of a 768-wide matrix product, the best of a few."""
    import time

    n = 768
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return float(2 * n**3 / best)


def _workspace(workspace: Workspace, deep: bool) -> list[Finding]:
    if not workspace.root.exists():
        return [Finding("workspace", "good", f"{workspace.root}: not made yet", "llmctl crawl demo")]
    if not os.access(workspace.root, os.W_OK):
        return [Finding("workspace", "bad", f"{workspace.root} cannot be written to", "choose another with -w")]
    workspace.recover()
    found, good = [], 0
    for artifact in workspace.artifacts():
        try:
            wrong = artifact.damage(deep)
        except UserError as e:
            wrong = [e.message()]
        good += not wrong
        again = f"make {artifact.kind}/{artifact.name} again (--overwrite)"
        found += [Finding("artifact", "bad", line, again) for line in wrong]
    how = "hashed" if deep else "looked at (--deep hashes every file)"
    found.insert(0, Finding("workspace", "good", f"{workspace.root}: {good} artifacts whole, {how}"))
    found += [
        Finding("unfinished", "good", name, "the same command again goes on with it") for name in workspace.unfinished()
    ]
    return found
