"""Names on the hub: what is downloaded from a server that speaks its protocol, and what is said when it cannot be."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmctl.errors import UserError
from llmctl.model.config import dial
from llmctl.model.folder import load_model, save_model
from llmctl.model.hub import fetch_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.model.transformer import Transformer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The two things that are asked of the hub: what a repository holds, and the contents of a file."""

    root: Path
    downloads: list[str]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/(org/[\w.-]+)(/revision/([\w.-]+))?", path):
            return self.listing(found[1], found[3])
        if found := re.fullmatch(r"/api/models/(org/[\w.-]+)/tree/([\w.-]+)", path):
            return self.tree(found[1])
        if found := re.fullmatch(rf"/(org/[\w.-]+)/resolve/{COMMIT}/(.+)", path):
            return self.file(self.root / found[1] / found[2], body)
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def listing(self, repo: str, revision: str | None) -> None:
        folder = self.root / repo
        if not folder.is_dir():
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if repo.endswith("gated"):
            return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if revision not in (None, "main", "v2", COMMIT):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = [{"rfilename": str(f.relative_to(folder))} for f in sorted(folder.rglob("*")) if f.is_file()]
        said = {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [], "siblings": files}
        return self.send(200, json.dumps(said).encode())

    def tree(self, repo: str) -> None:
        folder = self.root / repo
        said = [
            {"type": "file", "oid": "0" * 40, "size": f.stat().st_size, "path": str(f.relative_to(folder))}
            for f in sorted(folder.rglob("*"))
            if f.is_file()
        ]
        return self.send(200, json.dumps(said).encode())

    def file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        data = path.read_bytes()
        if body:
            self.downloads.append(path.name)
        etag = hashlib.sha256(data).hexdigest()
        return self.send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None, body: bool = True) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Served:
    """The server's folder, and a way to ask for a model in a process of its own (the endpoint is read at import)."""

    def __init__(self, root: Path, home: Path, port: int) -> None:
        self.root, self.downloads, self.home = root, Hub.downloads, home
        self.endpoint = f"http://127.0.0.1:{port}"

    def load(self, name: str, **changes: str) -> subprocess.CompletedProcess[str]:
        program = (
            "import sys; from llmctl.errors import UserError; from llmctl.model.folder import load_model\n"
            "try: print(load_model(sys.argv[1])[0].config.parameters())\n"
            "except UserError as e: print(e.message()); sys.exit(2)"
        )
        return self.python(["-c", program, name], **changes)

    def python(self, arguments: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        environment |= changes
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a small text"], 280)
    save_model(folder, Transformer(dial(1, tokenizer.vocab_size, 32, width=64, family="llama")), tokenizer)
    return folder


@pytest.fixture
def hub(tmp_path: Path, model: Path) -> Iterator[Served]:
    root = tmp_path / "hub"
    for name in ("good", "gated", "pickled"):
        (root / "org" / name).mkdir(parents=True)
        for file in model.iterdir():
            (root / "org" / name / file.name).write_bytes(file.read_bytes())
    (root / "org/pickled/model.safetensors").unlink()
    for extra in ("pytorch_model.bin", "consolidated.safetensors", "onnx/model.safetensors", "training_args.bin"):
        for name in ("good", "pickled"):
            file = root / "org" / name / extra
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"never to be read")
    Hub.root, Hub.downloads = root, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Served(root, tmp_path / "home", server.server_port)
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_model_is_downloaded_once_and_read_offline(hub: Served, model: Path) -> None:
    expected = str(load_model(model)[0].config.parameters())
    first = hub.load("hf:org/good")
    assert (first.returncode, first.stdout.strip()) == (0, expected), first.stderr
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert wanted <= set(hub.downloads) == set(hub.downloads) - {"README.md"}
    assert not {"pytorch_model.bin", "training_args.bin", "consolidated.safetensors"} & set(hub.downloads)
    assert hub.downloads.count("model.safetensors") == 1, "not the one for another program"
    hub.downloads.clear()
    again = hub.load("hf:org/good@main")
    assert again.stdout.strip() == expected and not hub.downloads
    offline = hub.load("hf:org/good", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.stdout.strip() == expected, offline.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("hf:org/none", {}, "no such model"),
        ("hf:org/good@gone", {}, "gone"),
        ("hf:org/gated", {}, "on request only"),
        ("hf:org/pickled", {}, "no safetensors"),
        ("hf:org/good", {"HF_HUB_OFFLINE": "1"}, "not in the cache"),
        ("hf:org/good", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(hub: Served, name: str, changes: dict[str, str], said: str) -> None:
    found = hub.load(name, **changes)
    assert found.returncode == 2, found.stderr
    assert said in found.stdout and name in found.stdout
    assert len(found.stdout.strip().splitlines()) <= 2
    assert "pytorch_model.bin" not in hub.downloads


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["chat", "hf:org/good", "-p", "a small", "-s", "max_new_tokens=3"],
        ["sft", "hf:org/good", "talk.jsonl", "-s", "train.steps=1", "-s", "eval_items=1"],
        ["rl", "hf:org/good", "--dry-run"],
        ["eval", "hf:org/good", "-s", "items=1"],
    ],
    ids=lambda c: c[0],
)
def test_commands_take_a_name_for_a_model(hub: Served, tmp_path: Path, command: list[str]) -> None:
    with open(tmp_path / "talk.jsonl", "w") as f:
        for n in range(20):
            turns = [{"role": "user", "content": f"a {n}"}, {"role": "assistant", "content": f"b {n}"}]
            f.write(json.dumps({"messages": turns}) + "\n")
    at = [str(tmp_path / c) if c.endswith(".jsonl") else c for c in command]
    found = hub.python(["-m", "llmctl.cli.main", *at, "-w", str(tmp_path / "w")])
    assert found.returncode == 0, found.stderr
    assert ("model.safetensors" in hub.downloads) == (command[0] != "rl"), "a plan needs no weights"


@pytest.mark.parametrize("name", ["hf:", "hf:gpt2/", "hf:a/b/c", "hf:../../etc", "hf:a/b@", "hf:a b/c", "hf:a/b\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no name of a model"):
        fetch_model(name)
