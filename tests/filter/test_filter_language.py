"""Languages: the built-in model against py3langid itself, a model trained here, and one fetched from a local server."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.filter import download, langid
from llmctl.filter import language as language_module
from llmctl.filter.config import FASTTEXT_LANGUAGE_MODELS, LanguageSettings
from llmctl.filter.language import Language
from llmctl.filter.quality_training import zeroed_memory
from llmctl.filter.row import Row
from llmctl.formats.document import Document

ENGLISH = "The committee met on Tuesday to talk about the bridge that crosses the river near the old mill."
GERMAN = "Der Ausschuss traf sich am Dienstag, um über die Brücke am alten Wehr zu sprechen."


def row(text: str) -> Row:
    return Row(Document(id="x", text=text))


def kept(step: Language, text: str) -> bool:
    values = np.array(step(row(text)))
    return not step.rules[0].fails(values)[0]


@pytest.fixture(scope="module")
def built_in() -> Language:
    return Language(LanguageSettings())


def test_language_is_found_and_noted(built_in: Language) -> None:
    english, german = row(ENGLISH), row(GERMAN)
    assert built_in(english)[0] > 0.99 and english.language == "en" and english.language_score == built_in(english)[0]
    assert built_in(german)[0] < 0.1 and german.language == "de" and german.language_score > 0.99  # type: ignore[operator]
    assert german.details == {"language.score": "de"}


@pytest.mark.parametrize("text", ["", "   ", "12345", "😀😃", "\n" * 100])
def test_what_is_no_language_is_dropped(built_in: Language, text: str) -> None:
    assert not kept(built_in, text)


def test_any_of_the_languages_may_score_and_none_means_any() -> None:
    assert kept(Language(LanguageSettings(languages=["en", "de"])), GERMAN)
    assert kept(Language(LanguageSettings(languages=[])), GERMAN)
    assert not kept(Language(LanguageSettings(languages=[])), "ok")
    assert kept(Language(LanguageSettings(threshold=None)), GERMAN)


def test_a_score_equal_to_the_threshold_is_not_enough() -> None:
    step = Language(LanguageSettings(languages=["en"], threshold=0.5))
    step.scores = lambda text: {"de": 0.5, "en": float(text)}
    assert not kept(step, "0.5") and kept(step, "0.50001")


# py3langid, made fast


@pytest.fixture(scope="module")
def theirs() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def test_the_fast_walk_is_the_one_that_runs() -> None:
    assert isinstance(langid.scorer(), langid.Scorer)


@pytest.mark.parametrize(
    "text",
    ["", "a", " ", "AB", "\x00\x00ab", "é" * 300_000, "x" * (1 << 18), "日本語のテキスト" * 1000, "عربي", "a\u0301" * 9,
     "\ud800x", "ОБЪЯВЛЕНИЕ", "ekavica ijekavica", "🏳️\u200d🌈"],
)  # fmt: skip
def test_scores_are_py3langids_to_the_bit(theirs: Any, text: str) -> None:
    assert langid.scorer()(text) == dict(theirs.rank(text))


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_scores_are_py3langids_to_the_bit_for_any_text(theirs: Any, text: str) -> None:
    assert langid.scorer()(text) == dict(theirs.rank(text))


def test_scores_are_py3langids_to_the_bit_in_many_languages(theirs: Any, data: Path) -> None:
    texts = [r["text"] for name in ("lingua_sentences", "udhr") for r in rows(data / "lang" / f"{name}.jsonl.gz")][::9]
    assert len(texts) > 1000 and all(langid.scorer()(t) == dict(theirs.rank(t)) for t in texts)


def test_text_in_pieces_is_the_same_text(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langid, "_PIECE", 7)
    assert langid.scorer()(GERMAN) == dict(theirs.rank(GERMAN))


def test_an_automaton_that_remembers_more_than_the_last_bytes_is_told() -> None:
    rows_of = np.zeros((2, 256), np.uint32)
    rows_of[0, ord("a")] = 1
    rows_of[1] = 1  # once an "a" was read, for ever
    with pytest.raises(langid._OtherAutomaton):
        langid.Walk(rows_of.ravel(), [0, 1], [-1, 0])
    rows_of[1] = 0
    rows_of[1, ord("a")] = 1  # the last byte is an "a"
    walk = langid.Walk(rows_of.ravel(), [0, 1], [-1, 7])
    assert walk(b"abaab").tolist() == [7, 7, 7] and walk(b"").tolist() == []


# fastText


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fastText model that knows a word of each of two languages."""
    import fasttext

    folder = tmp_path_factory.mktemp("fasttext")
    (folder / "train.txt").write_text("__label__en the of and\n__label__de der und von\n" * 50)
    with zeroed_memory():
        model = fasttext.train_supervised(str(folder / "train.txt"), dim=4, epoch=50, lr=1.0, thread=1, verbose=0)
    model.save_model(str(folder / "tiny.bin"))
    return folder / "tiny.bin"


def test_a_fasttext_model_by_its_path(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    step = Language(LanguageSettings(model=str(tiny)))
    english = row("the one\nand the other")
    assert step(english)[0] > 0.65 and english.language == "en"
    assert not kept(step, "der und von")
    assert capfd.readouterr() == ("", "")
    wrong = tmp_path / "model.bin"
    wrong.write_bytes(b"no model")
    with pytest.raises(UserError, match="no fastText model"):
        kept(Language(LanguageSettings(model=str(wrong))), "x")
    with pytest.raises(ValueError, match="no such file"):
        LanguageSettings(model="nowhere.bin")


@pytest.mark.parametrize("languages", [["en"], ["de", "fr"], []])
def test_decisions_are_datatroves_with_the_same_model(data: Path, languages: list[str]) -> None:
    lid = pytest.importorskip("datatrove.utils.lid")
    from datatrove.data import Document as Theirs
    from fasttext.FastText import _FastText

    path = data / "lang" / "lid.176.ftz"
    identifier = lid.FT176LID(languages or None)
    identifier._model = _FastText(str(path))
    step = Language(LanguageSettings(model=str(path), languages=languages))
    texts = [r["text"] for r in rows(data / "lang" / "lingua_sentences.jsonl.gz")][::7] + [
        "",
        "\n",
        "a\r\nb\u2028c",
        "\0",
    ]
    for text in texts:
        (best, score), pairs = identifier.predict(Theirs(text=text, id=""))
        found = row(text)
        # Its LanguageFilter: any listed language, else the best one; strictly above.
        expected = any(s > 0.65 for s in pairs.values()) if languages else score > 0.65
        assert kept(step, text) == expected
        step(found)
        assert (found.language, found.language_score) == (best, pytest.approx(min(score, 1.0)))


@pytest.mark.slow
def test_the_built_in_model_agrees_with_fasttext_on_real_sentences(data: Path, built_in: Language) -> None:
    fast = Language(LanguageSettings(model=str(data / "lang" / "lid.176.ftz")))
    texts = [r["text"] for r in rows(data / "lang" / "lingua_sentences.jsonl.gz") if len(r["text"]) > 100][::40]
    same = sum(kept(built_in, t) == kept(fast, t) for t in texts)
    assert len(texts) > 100 and same / len(texts) > 0.97


# Fetching


class Server(http.server.ThreadingHTTPServer):
    """Serves `body`; cuts the first `cuts` answers in the middle; notes the ranges asked for."""

    body, cuts, ranges = b"", 0, True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if start >= len(self.server.body):
            self.send_error(416)
            return
        body = self.server.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def published(server: Server, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as if it were fastText's, on a mirror; the place where it will be kept."""
    server.body = tiny.read_bytes()
    monkeypatch.setitem(FASTTEXT_LANGUAGE_MODELS, "lid.176.ftz", hashlib.sha256(server.body).hexdigest())
    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMCTL_FASTTEXT_URL", server.address + "/")
    return tmp_path / "cache" / "lid.176.ftz"


def test_a_model_by_name_is_fetched_once(server: Server, published: Path) -> None:
    for _ in range(2):
        assert kept(Language(LanguageSettings(model="lid.176.ftz")), "the of and")
    assert published.read_bytes() == server.body and server.asked == [""]
    assert sorted(p.name for p in published.parent.iterdir()) == [".lid.176.ftz.lock", "lid.176.ftz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_is_resumed(server: Server, published: Path, ranges: bool) -> None:
    server.cuts, server.ranges = 2, ranges
    language_module.model_path(LanguageSettings(model="lid.176.ftz"))
    half = len(server.body) // 2
    assert published.read_bytes() == server.body
    assert server.asked == ["", f"bytes={half}-", f"bytes={half + (len(server.body) - half) // 2 if ranges else half}-"]


def test_a_killed_download_is_resumed(server: Server, published: Path) -> None:
    for have in (100, len(server.body)):
        published.parent.mkdir(exist_ok=True)
        published.with_name(".lid.176.ftz.part").write_bytes(server.body[:have])
        language_module.model_path(LanguageSettings(model="lid.176.ftz"))
        assert published.read_bytes() == server.body and server.asked.pop() == f"bytes={have}-"
        published.unlink()


def test_what_is_not_the_published_file_is_refused(server: Server, published: Path) -> None:
    right = server.body
    server.body = right[:-1] + b"?"
    with pytest.raises(UserError, match=r"is not the file that was published(?s:.*)put it at .*lid\.176\.ftz"):
        language_module.model_path(LanguageSettings(model="lid.176.ftz"))
    assert not published.exists()
    server.body = right
    language_module.model_path(LanguageSettings(model="lid.176.ftz"))  # and the next try is a fresh one
    published.write_bytes(b"damaged since")
    with pytest.raises(UserError, match="delete it"):
        language_module.model_path(LanguageSettings(model="lid.176.ftz"))


@pytest.mark.parametrize(
    ("address", "why"),
    [("{}/missing", "answered 404"), ("http://127.0.0.1:9", "refused"), ("http://no-such-host.invalid", "cannot fetch"),
     ("no address", "unknown url type"), ("{}", "3 of 6")],
)  # fmt: skip
def test_without_the_network_the_person_is_told_where_to_put_the_file(
    server: Server, published: Path, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    server.body, server.cuts = b"abcdef", 1
    monkeypatch.setattr(download, "_TRIES", 1)
    monkeypatch.setenv("LLMCTL_FASTTEXT_URL", address.format(server.address))
    with pytest.raises(UserError) as told:
        language_module.model_path(LanguageSettings(model="lid.176.ftz"))
    assert why in str(told.value) and str(published) in str(told.value) and not published.exists()


def test_a_file_of_that_name_in_the_folder_is_taken_as_it_is(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lid.176.bin").write_bytes(tiny.read_bytes())
    assert kept(Language(LanguageSettings(model="lid.176.bin")), "the of and")
