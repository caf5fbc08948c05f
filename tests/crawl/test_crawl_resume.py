"""A crawl killed with SIGKILL goes on: every page once, nothing asked for twice but what was in flight."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmctl.crawl.archive import Archive
from llmctl.crawl.frontier import Frontier

CHILD = """
import json, sys
from llmctl.console import Console
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.stage import run
from llmctl.workspace import Workspace
settings = json.loads(sys.argv[2])
run(CrawlConfig.model_validate(settings), Workspace(sys.argv[1]), Console(quiet=True))
"""
CONCURRENCY = 4


@pytest.fixture
def tree(site: Any, links: Any, Reply: Any) -> Any:
    """120 pages in a tree, each a little slow."""

    def answer(path: str) -> Any:
        number = int(path[1:] or 0)
        children = [f"/{c}" for c in (3 * number + 1, 3 * number + 2, 3 * number + 3) if c < 120]
        text = (links(*children) + f"<p>{path}" + "filler " * 300).encode()
        return Reply(headers={"Content-Type": "text/html"}, chunks=[text], pause=0.005)

    site.fallback = answer
    site.routes["/robots.txt"] = Reply(status=404)
    return site


def settings(site: Any) -> dict[str, Any]:
    return {
        "source": site.url,
        "segment_bytes": 20_000,
        "concurrency": CONCURRENCY,
        "politeness": {"delay": 0.0, "per_host": CONCURRENCY},
        "fetch": {"backoff": 0.01},
    }


@pytest.mark.slow
def test_killed_again_and_again(tree: Any, crawl: Any) -> None:
    rng = random.Random(7)
    command = [sys.executable, "-c", CHILD, str(crawl.workspace.root), json.dumps(settings(tree))]
    kills = 0
    while not (crawl.workspace.root / "pages" / "pages" / "manifest.json").exists():
        child = subprocess.Popen(command)
        before = sum(tree.asked.values())
        while sum(tree.asked.values()) == before and child.poll() is None:
            time.sleep(0.01)
        try:
            child.wait(rng.uniform(0.02, 0.3))
            assert child.returncode == 0
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            kills += 1
        assert kills < 60
    assert kills >= 2
    crawl.artifact = crawl.workspace.find("pages", ["pages"])
    stored = [r.rec_headers.get_header("WARC-Target-URI") for r in crawl.records() if r.rec_type == "response"]
    assert sorted(stored) == sorted(f"{tree.url}/{i or ''}" for i in range(120))
    assert crawl.artifact.figures["pages"] == 120
    again = sum(n - 1 for path, n in tree.asked.items() if path != "/robots.txt")
    assert again <= kills * CONCURRENCY


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tree: Any, crawl: Any) -> None:
    from llmctl.console import Console
    from llmctl.crawl.config import CrawlConfig
    from llmctl.crawl.stage import run
    from llmctl.errors import Interrupted

    answer = tree.fallback

    once = threading.Lock()

    def interrupting(path: str) -> Any:
        if len(tree.times) >= 30 and once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        return answer(path)

    tree.fallback = interrupting
    config = CrawlConfig.model_validate(settings(tree))
    with pytest.raises(Interrupted, match=r"pages are stored; run the same command again"):
        run(config, crawl.workspace, Console(quiet=True))
    tree.fallback = answer
    pages = crawl(tree.url, **{k: v for k, v in settings(tree).items() if k != "source"})
    assert sorted(pages) == sorted(f"{tree.url}/{i or ''}" for i in range(120))
    assert sum(n - 1 for n in tree.asked.values()) <= CONCURRENCY


def killed_after_writing(crawl: Any, site: Any, monkeypatch: Any, after: int) -> None:
    """A crawl that dies between the fsync of its pages and the commit that marks them."""
    written = 0
    flush, commit = Archive.flush, Frontier.commit

    def counting(self: Archive) -> tuple[int, int]:
        nonlocal written
        before = self.position
        written += flush(self) != before
        return self.position

    def dying(self: Frontier) -> None:
        if written > after:
            raise MemoryError("killed here")
        commit(self)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "flush", counting)
        patched.setattr(Frontier, "commit", dying)
        with pytest.raises(MemoryError):
            crawl(site.url, **{k: v for k, v in settings(site).items() if k != "source"})


@pytest.mark.parametrize("after", [3, 6, 12])
def test_pages_written_but_not_marked_are_not_fetched_again(
    tree: Any, crawl: Any, monkeypatch: Any, after: int
) -> None:
    killed_after_writing(crawl, tree, monkeypatch, after)
    work = crawl.workspace.root / ".work" / "pages" / "pages"
    frontier = Frontier(work / "scratch" / "frontier.sqlite")
    unmarked = [record for record, _ in Archive(work, "live", 20_000, frontier.position).recover()]
    assert unmarked and all(frontier.find(r.url)[2] != "page" for r in unmarked)
    frontier.close()
    tree.asked.clear()
    pages = crawl(tree.url, **{k: v for k, v in settings(tree).items() if k != "source"})
    assert sorted(pages) == sorted(f"{tree.url}/{i or ''}" for i in range(120))
    assert not any(tree.asked[r.url.removeprefix(tree.url)] for r in unmarked)
    assert tree.asked["/robots.txt"] == 0


@pytest.mark.parametrize("torn", [1, 40, 200, 700])
def test_a_torn_tail_is_cut(tree: Any, crawl: Any, monkeypatch: Any, torn: int) -> None:
    killed_after_writing(crawl, tree, monkeypatch, 8)
    work = crawl.workspace.root / ".work" / "pages" / "pages"
    last = max(work.glob("live-*.warc.gz"))
    last.write_bytes(last.read_bytes()[:-torn])
    pages = crawl(tree.url, **{k: v for k, v in settings(tree).items() if k != "source"})
    assert sorted(pages) == sorted(f"{tree.url}/{i or ''}" for i in range(120))


def test_other_settings_begin_anew(tree: Any, crawl: Any, monkeypatch: Any) -> None:
    killed_after_writing(crawl, tree, monkeypatch, 6)
    changed = {**settings(tree), "max_pages": 5}
    assert len(crawl(changed.pop("source"), **changed)) == 5


def test_a_full_disk_is_one_clear_line(tree: Any, crawl: Any, monkeypatch: Any) -> None:
    from llmctl.errors import UserError

    def full(self: Any, *args: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmctl.crawl.archive.os", SimpleNamespace(fsync=full, truncate=os.truncate))
    with pytest.raises(UserError, match="No space left"):
        crawl(tree.url, **{k: v for k, v in settings(tree).items() if k != "source"})
    monkeypatch.undo()
    assert len(crawl(tree.url, **{k: v for k, v in settings(tree).items() if k != "source"})) == 120


def test_the_frontier_forgets_what_was_not_committed(tmp_path: Path) -> None:
    frontier = Frontier(tmp_path / "f.sqlite")
    frontier.add("http://e.com/", "e.com")
    frontier.commit()
    job = frontier.take("e.com")
    assert job is not None and frontier.take("e.com") is None
    frontier.commit()  # taken, and on disk as taken
    frontier.finish(job.id, "page")
    frontier.close()
    frontier = Frontier(tmp_path / "f.sqlite")
    assert frontier.take("e.com") == job
