"""One's own filter, token counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE

from llmctl.errors import UserError
from llmctl.filter.config import FilterConfig, OwnSettings
from llmctl.filter.own import Own
from llmctl.filter.tokens import TokenCounter

# One's own


def own(name: str, text: str = PROSE) -> str:
    """Why a filter drops the text; empty where it keeps it."""
    return Own(OwnSettings(function=name if ":" in name else f"own_filters:{name}"))({"id": "x", "text": text})


def test_a_filter_of_ones_own_drops_for_its_reason() -> None:
    assert own("no_bridges") == "bridge"
    assert own("no_bridges", "a river") == ""


def test_a_filter_that_raises_ends_with_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"(?s)own_filters.py:\d+: .*own_filters:raises raised KeyError.*document 'x'"):
        own("raises")


def test_a_filter_that_answers_something_else_is_told_what_to_return() -> None:
    with pytest.raises(UserError, match="returned 'maybe'"):
        own("says_maybe")


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_such_module:f", "no module 'no_such_module'"), ("own_filters:no_bridge", "did you mean 'no_bridges'"),
     ("own_filters:NOT_CALLABLE", "no function")],
)  # fmt: skip
def test_a_filter_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        own(name)


def test_a_filters_name_is_checked_with_the_settings() -> None:
    with pytest.raises(ValueError, match="module:function"):
        OwnSettings(function="just_a_name")


def test_a_changed_filter_or_list_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def f(d): return True\n")
    (tmp_path / "list.txt").write_text("a.com\n")
    config = FilterConfig.model_validate(
        {"pages": "p", "own": {"function": "mine:f"}, "url": {"domains": ["file:list.txt"]}}
    )
    before = config.recorded(fingerprint=True)
    (tmp_path / "mine.py").write_text("def f(d): return False\n")
    between = config.recorded(fingerprint=True)
    (tmp_path / "list.txt").write_text("b.com\n")
    assert before != between != config.recorded(fingerprint=True)
    assert "files" not in config.recorded()


# Token counts


def test_tokens_are_counted_without_special_ones(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2, "<s>": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert TokenCounter(path).counts(["a b a", "", "c"]) == [3, 0, 1]
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        TokenCounter(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer"):
        TokenCounter(tmp_path)
