"""Damaged archives at the command line: exit 0 with a count, or 2 with --strict."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["crawl", "filter"])
def test_strict_at_the_command_line(data: Path, tmp_path: Path, stage: str) -> None:
    for name in ("chatnoir-resiliparse__clipped.warc.gz", "whirlwind-python__whirlwind.warc.gz"):
        shutil.copy(data / "web" / "warc" / name, tmp_path)

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        own = [] if stage == "crawl" else ["-s", "language.languages=[]", "-s", "gopher_quality.enabled=false"]
        command = [
            sys.executable,
            "-m",
            "llmctl.cli.main",
            stage,
            f"{tmp_path}/",
            "-w",
            str(tmp_path / ".w"),
            *own,
            *flags,
        ]
        return subprocess.run(command, text=True, capture_output=True, timeout=120)

    strict = run("--strict")
    assert strict.returncode == 2
    assert "clipped.warc.gz (byte 0): damaged: the file ends in the middle of a record" in strict.stderr
    lenient = run()
    assert lenient.returncode == 0, lenient.stderr
    assert re.search(r"clipped.warc.gz[ :(]+byte 0\)?: the file ends in the middle of a record", lenient.stderr)
