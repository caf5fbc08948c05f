"""`hf:org/name` through `datasets`, against a local server that speaks the hub's protocol."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/name"

CARD = b"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
  - split: test
    path: test.parquet
- config_name: html
  data_files: html/*.parquet
- config_name: other
  data_files: other.parquet
---
"""

# The address of the hub is read when huggingface_hub is imported, so each test reads in a process of its own.
CHILD = """
import itertools, json, sys
from pathlib import Path
from llmctl.errors import UserError
from llmctl.formats.web import read_documents
try:
    found = itertools.islice(read_documents(Path(sys.argv[1])), int(sys.argv[2]))
    print(json.dumps([[d.id, d.url, d.text, d.html and d.html.decode()] for d in found]))
except UserError as e:
    print(e.message(), file=sys.stderr)
    sys.exit(2)
"""


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=50)
    return out.getvalue()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode())


class Hub:
    """One data set: its files by path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: Counter[str] = Counter()
        self.sent = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def entry(self, path: str) -> dict[str, Any]:
        return {
            "type": "file",
            "path": path,
            "size": len(self.files[path]),
            "oid": hashlib.sha1(path.encode()).hexdigest(),
        }

    def about(self) -> dict[str, Any]:
        names = [{"rfilename": p} for p in self.files]
        return {"id": REPO, "sha": SHA, "private": False, "gated": False, "tags": [], "siblings": names, "downloads": 0}

    def tree(self, folder: str, deep: bool) -> list[dict[str, Any]]:
        start = folder + "/" if folder else ""
        below = [p for p in self.files if p.startswith(start)]
        folders = {start + p[len(start) :].partition("/")[0] for p in below if "/" in p[len(start) :]}
        listed = [p for p in below if deep or "/" not in p[len(start) :]]
        return [{"type": "directory", "path": f, "oid": "0" * 40} for f in sorted(folders)] + [
            self.entry(p) for p in listed
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else re.findall(r"paths=([^&]+)", body)
        self.json([self.hub.entry(p) for p in map(unquote, asked) if p in self.hub.files])

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked[f"{self.command} {path}"] += 1
        resolved = re.fullmatch(rf"datasets/{REPO}/resolve/[^/]+/(.+)", path)
        tree = re.fullmatch(rf"api/datasets/{REPO}/tree/[^/]+/?(.*)", path)
        if resolved and resolved[1] in self.hub.files:
            self.file(self.hub.files[resolved[1]])
        elif tree:
            self.json(self.hub.tree(tree[1], "recursive=true" in self.path.lower()))
        elif re.fullmatch(rf"api/datasets/{REPO}(/revision/[^/]+)?", path):
            self.json(self.hub.about())
        else:
            code = "EntryNotFound" if REPO in path else "RepoNotFound"
            self.answer(404, b'{"error": "not found"}', {"X-Error-Code": code, "X-Repo-Commit": SHA})

    def file(self, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            self.answer(206, data[start : end + 1], headers)
        else:
            self.answer(200, data, headers)

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", "X-Repo-Commit": SHA})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sent += len(body)
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    pages = [{"text": f"text {i} " + "x" * 200, "url": f"http://e.com/{i}"} for i in range(200)]
    found = Hub(
        {
            "README.md": CARD,
            "data/train-0.parquet": parquet(pages[:150]),
            "data/train-1.parquet": parquet(pages[150:]),
            "test.parquet": parquet([{"text": t, "url": "u"} for t in ("held out", None, "as well")]),
            "html/0.parquet": parquet([{"html": "<p>a page"}]),
            "other.parquet": parquet([{"words": "x", "n": 1}]),
        }
    )
    yield found
    found.server.shutdown()
    found.server.server_close()


def read(hub: Hub, name: str, home: Path, most: int = 1000) -> tuple[list[Any], str]:
    environment = {
        **os.environ,
        **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "0"),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", CHILD, name, str(most)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)
    assert done.returncode in (0, 2), done.stderr
    return (json.loads(done.stdout) if done.returncode == 0 else []), done.stderr


@pytest.mark.slow
def test_rows_are_streamed_in_their_order(hub: Hub, tmp_path: Path) -> None:
    found, _ = read(hub, f"hf:{REPO}", tmp_path)
    assert [url for _, url, _, _ in found] == [f"http://e.com/{i}" for i in range(200)]
    assert found[0][0] == f"hf:{REPO}#1" and found[7][2].startswith("text 7 ")


@pytest.mark.slow
def test_configs_and_splits(hub: Hub, tmp_path: Path) -> None:
    assert [row[2] for row in read(hub, f"hf:{REPO}@test", tmp_path)[0]] == ["held out", "as well"]
    assert read(hub, f"hf:{REPO}:html", tmp_path)[0][0][3] == "<p>a page"
    hub.files = {"data/train.jsonl.gz": jsonl([{"text": "a line"}, {"text": "two"}])}
    assert [row[2] for row in read(hub, f"hf:{REPO}", tmp_path / "other")[0]] == ["a line", "two"]


@pytest.mark.slow
def test_a_hub_that_fails_half_way_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.files["data/train-1.parquet"] = hub.files["data/train-1.parquet"][:-100] + b"x" * 100
    found, error = read(hub, f"hf:{REPO}", tmp_path)
    assert not found and re.search(r"broke off after 150 rows[\s\S]*", error), error
    assert len(error.splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what"),
    [
        (f"hf:{REPO}@validation", r"cannot read it from the hub: [\s\S]*validation"),
        (f"hf:{REPO}:absent", r"cannot read it from the hub: [\s\S]*absent"),
        (f"hf:{REPO}:other", r"the rows have no text[\s\S]*words, n"),
        ("hf:no/such", r"cannot read it from the hub: [\s\S]*no/such"),
    ],
)
def test_mistakes(hub: Hub, tmp_path: Path, name: str, what: str) -> None:
    _, error = read(hub, name, tmp_path)
    assert re.search(what, error), error
    assert len(error.splitlines()) == 2
