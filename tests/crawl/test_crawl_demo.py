"""The demo site: served, crawled over HTTP, and fit to train on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmctl.crawl.demo import Demo
from llmctl.crawl.demo_pages import blocks
from llmctl.formats.web import read_documents


@pytest.mark.slow
def test_the_whole_site(crawl: Any) -> None:
    from trafilatura import extract

    urls = crawl("demo")
    assert len(urls) == len(set(urls)) and 250 < len(urls) < 600
    assert crawl.artifact.figures["left_out"] == {"excluded: robots.txt": 1, "sitemap": 1}
    pages = {d.url.removeprefix("http://pydoc.localhost"): d.markup() for d in read_documents(crawl.artifact.path)}
    for path in ("/library/json.html", "/library/heapq.html", "/library/collections.abc.html", "/reference/assert.html",
                 "/de/rights.html", "/fr/rights.html", "/es/rights.html", "/offers/free-prize.html"):  # fmt: skip
        assert path in pages
    assert not any(
        name in pages for name in ("/library/antigravity.html", "/library/turtle.html", "/private/drafts.html")
    )
    mirrors = [p for p in pages if p.startswith("/mirror/")]
    assert len(mirrors) > 5 and all(pages[m] == pages[m.replace("mirror", "library")] for m in mirrors)
    text = extract(pages["/library/heapq.html"], favor_precision=True, include_comments=False)
    assert "Heap queue algorithm" in text and "smallest element" in text and "\xa0" not in text
    assert "heappush(heap, item" in text
    everything = "".join(pages.values())
    assert "<code>" in everything and " at 0x" not in everything
    assert "environ({&#x27;" not in everything and "environ({'" not in everything
    assert not [key for key, value in os.environ.items() if len(value) > 15 and value in everything]
    assert sys.prefix not in everything and str(Path.home()) + "/" not in everything


@pytest.mark.slow
def test_pages_do_not_depend_on_the_order_of_requests() -> None:
    import httpcore

    def get(*paths: str) -> list[bytes]:
        with Demo() as demo:
            return [httpcore.request("GET", f"http://127.0.0.1:{demo.port}{p}").content for p in paths]

    a, b = get("/library/textwrap.html", "/library/argparse.html")
    assert get("/library/argparse.html", "/library/textwrap.html") == [b, a]


@pytest.mark.slow
def test_the_site_goes_down_with_its_parent() -> None:
    code = """
import time
from llmctl.crawl.demo import Demo
with Demo() as demo:
    print(demo._process.pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        try:
            with open(f"/proc/{child}/stat", encoding="utf-8") as f:
                if f.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError("the server outlived its parent")


def test_docstrings_become_paragraphs() -> None:
    text = """Sort things.

    The order is kept, and the
    list is not copied.

    key: how two are compared,
         at length
    reverse: turn it round

    - one
    - two
      and a half

        x = sort(y)
        z[0] < 1

    >>> sort([2, 1])
    [1, 2]
    """
    assert blocks(text, str.upper).split("\n") == [
        "<p>SORT THINGS.</p>",
        "<p>THE ORDER IS KEPT, AND THE LIST IS NOT COPIED.</p>",
        "<p>KEY: HOW TWO ARE COMPARED, AT LENGTH</p>",
        "<p>REVERSE: TURN IT ROUND</p>",
        "<p>- ONE</p>",
        "<p>- TWO AND A HALF</p>",
        "<pre><code>x = sort(y)",
        "z[0] &lt; 1</code></pre>",
        "<pre><code>&gt;&gt;&gt; sort([2, 1])",
        "[1, 2]</code></pre>",
    ]
