"""What `llmctl doctor` says of the sandbox: whether it can be had here, what stops it, and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.console import Console
from llmctl.pipeline import doctor

WHY = "user namespaces are refused: Operation not permitted"


def machine(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc/sys and a / with those files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "proc", folder / "root"


@pytest.mark.parametrize(
    ("files", "fix"),
    [
        ({"proc/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, "apparmor_restrict_unprivileged_userns=0"),
        ({"proc/kernel/unprivileged_userns_clone": "0\n"}, "unprivileged_userns_clone=1"),
        ({"proc/user/max_user_namespaces": "0\n", "root/.dockerenv": ""}, "max_user_namespaces=10000"),
        ({"proc/user/max_user_namespaces": "5000\n", "root/.dockerenv": ""}, "seccomp=unconfined"),
        ({"root/run/.containerenv": ""}, "seccomp=unconfined"),
        ({}, "docs/tools.md"),
    ],
)
def test_what_stops_the_sandbox_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], fix: str
) -> None:
    monkeypatch.setattr(doctor, "why_off", lambda: WHY)
    found = doctor.sandbox(*machine(tmp_path, files))
    assert found.state == "off" and found.what == WHY and fix in found.fix


def test_a_sandbox_that_is_there_or_forced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "why_off", lambda: "")
    monkeypatch.setattr(doctor, "isolated", lambda: True)
    assert doctor.sandbox().state == "good"
    monkeypatch.setattr(doctor, "isolated", lambda: False)
    found = doctor.sandbox()
    assert found.state == "bad" and "LLMCTL_PYTHON_UNSAFE" in found.fix
    doctor.show_findings([found, doctor.Finding("python tool", "off", WHY, "a fix")], Console())
    shown = capsys.readouterr()
    assert f"off   python tool  {WHY}" in shown.out and "-> a fix" in shown.out and "1 to mend" in shown.err


@pytest.mark.parametrize(
    ("why", "state", "fix"),
    [("LLMCTL_NATIVE=0", "off", ""), ("they need a processor with AMX", "off", ""),
     ("they need a C++ compiler (g++ or clang++)", "slow", "install")],
)  # fmt: skip
def test_kernels_that_are_off_say_why(monkeypatch: pytest.MonkeyPatch, why: str, state: str, fix: str) -> None:
    monkeypatch.setattr(doctor.build, "why_not", lambda: why)
    found = doctor._kernels()
    assert (found.state, found.what) == (state, why) and fix in found.fix


def test_kernels_that_do_not_compile_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.build, "why_not", lambda: None)
    monkeypatch.setattr(doctor.build, "library", lambda _: None)
    assert doctor._kernels().state == "slow"
