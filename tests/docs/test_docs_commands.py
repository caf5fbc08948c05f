"""What README and docs tell a person to type works as it stands, and their tables of settings are the schemas'."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import files
import pytest
from small import ASSISTANT, CI, FINEWEB, QUICKSTART, R1, R1_ZERO, RLHF, SITE, SWEEP, YOUR_DATA, flags

from llmctl.pipeline.docs import refreshed

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LLMCTL_TEST_DATA", ROOT.parent / "shared" / "data"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LLMCTL = f"{sys.executable} -m llmctl.cli.main"

# What makes a stage's work small enough for a test, without changing what the command says.
SMALL = {
    "crawl": ["max_pages=40"],
    "filter": [],
    "tokenize": ["vocab_size=512"],
    "pretrain": ["depth=1", "context=128", "train.steps=2", "eval_tokens=1000", "samples.every=0"],
    "sft": ["train.steps=2", "eval_items=2"],
    "rm": ["train.steps=2"],
    "rl": ["train.steps=1", "rollouts.prompts=2", "rollouts.group=2", "rollouts.max_new_tokens=8", "eval_items=2"],
    "eval": ["items=2", "pairs=4", "loss_tokens=1000", "max_new_tokens=8"],
    "chat": ["max_new_tokens=8"],
    "synth": ["heldout=4"],
}


RECIPES = {
    "your-data": YOUR_DATA,
    "assistant": ASSISTANT,
    "quickstart": QUICKSTART,
    "site": SITE,
    "fineweb": FINEWEB,
    "r1-zero": R1_ZERO,
    "r1": R1,  # behind the one whose name begins with it
    "rlhf": RLHF,
    "sweep": SWEEP,
    "ci": CI,  # last: other names hold these two letters
}


def commands() -> list[tuple[str, str]]:
    """(page, command) for every line of the shell blocks that calls llmctl."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, re.split(r"\s{2,}#", line)[0].strip()) for line in lines if "llmctl " in line]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_tables_of_settings_are_the_schemas(page: Path) -> None:
    assert refreshed(page.read_text()) == page.read_text(), "run: python -m llmctl.pipeline.docs docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[\w-]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def places(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """For each page a folder to type in: a workspace with the small quickstart, and the files that pages talk about."""
    base = tmp_path_factory.mktemp("docs")
    handler = functools.partial(Quiet, directory=str(base))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def place(page: str) -> Path:
        folder = base / page
        if not folder.exists():
            shutil.copytree(quickstart, folder / "workspace")
            files.write(folder, f"http://127.0.0.1:{server.server_port}/{page}/folder-of-html/")
            warc = next((quickstart / "pages/docs").glob("*.warc.gz"))
            for name in ("archive.warc.gz", "old/1.warc.gz"):
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copy(warc, folder / name)
            shutil.copytree(quickstart / "model/chat", folder / "some/huggingface/folder")
            if (gpt2 := DATA / "tokenizers/gpt2").is_dir():
                shutil.copytree(gpt2, folder / "gpt2-files")
        return folder

    yield place
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not talk."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def small(command: str) -> str:
    """`command` with the overrides that keep it short, which a stage takes behind its own words."""

    def add(match: re.Match[str]) -> str:
        stage = match[2]
        if stage == "run":
            sets = next((small for name, small in RECIPES.items() if name in match[0]), [])
        elif stage == "tokenize" and " - " in match[0]:
            sets = []
        else:
            sets = SMALL.get(stage, [])
        made = stage in SMALL and stage != "chat" and not (stage == "tokenize" and " - " in match[0])
        again = "--overwrite " if made else ""
        words = again + " ".join(f"'{w}'" if w != "-s" else w for w in flags(sets))
        return f"{LLMCTL} {match[2]}{match[3].rstrip()} {words} "

    return re.sub(r"(?<![\w/.-])(llmctl) ([a-z]+)((?:'[^']*'|\"[^\"]*\"|[^|;&'\"])*)", add, command)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda v: str(v)[:70])
def test_commands_work_as_written(page: str, command: str, places: Callable[[str], Path]) -> None:
    place = places(page)
    if "gpt2-files" in command and not (place / "gpt2-files").is_dir():
        pytest.skip("GPT-2's vocabulary is not here")
    if re.search(r"example\.org|hf:|cc:", command):
        command += " --dry-run"  # the rest would need the network
    done = subprocess.run(
        small(command), shell=True, cwd=place, text=True, capture_output=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{small(command)}\n{done.stderr}"
    assert "Traceback" not in done.stderr
