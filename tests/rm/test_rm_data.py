"""From rows to rankings: rendered exactly, split by prompt, and what cannot be used is counted and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.errors import UserError
from llmctl.model.chat_format import render
from llmctl.model.tokenizer import Tokenizer
from llmctl.rm.config import RmConfig
from llmctl.rm.data import Data, read_data
from llmctl.workspace import Workspace


def row(prompt: Any = "say something", replies: tuple[str, ...] = ("good", "bad"), **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "responses": list(replies), "ranking": list(range(len(replies))), **more}


def many(n: int, **more: Any) -> list[dict[str, Any]]:
    return [row(f"say {i}", **more) for i in range(n)]


def read(workspace: Workspace, tokenizer: Tokenizer, *names: str, longest: int = 96, **settings: Any) -> Data:
    return read_data(RmConfig(model="m", comparisons=list(names), **settings), workspace, tokenizer, longest)


def test_a_conversation_is_rendered_as_everywhere_else(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    turns = [{"role": "system", "content": "be good"}, {"role": "user", "content": "say it <|im_end|>"}]
    put("c", [row(turns, ("good", "bad", "no"))], [row("other")])
    found = read(workspace, tokenizer, "c").train[0]
    whole = [render([*turns, {"role": "assistant", "content": r}], tokenizer).ids for r in ("good", "bad", "no")]
    assert [ids.tolist() for ids in found.replies] == whole and found.prompt == len(render(turns, tokenizer).ids)
    assert all(ids[-1] == tokenizer.id_of("<|im_end|>") for ids in found.replies)
    assert found.ranks == (0, 1, 2) and found.pairs == [(0, 1), (0, 2), (1, 2)]


def test_what_an_artifact_holds_out_is_held_out(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    put("c", many(20), [row("other"), row("say 3")])
    found = read(workspace, tokenizer, "c", heldout=0.5)
    assert (len(found.train), len(found.heldout), found.overlap) == (19, 2, 1)


def test_a_file_is_split_by_its_prompts(tmp_path: Path, workspace: Workspace, tokenizer: Tokenizer) -> None:
    rows = many(200) + many(200, replies=("well", "bad"))
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = read(workspace, tokenizer, str(tmp_path / "c.jsonl"), heldout=0.25)
    train, held = ({tuple(r.replies[1][: r.prompt].tolist()) for r in part} for part in (found.train, found.heldout))
    assert not train & held and len(train) + len(held) == 200 and 30 <= len(held) <= 70
    again = read(workspace, tokenizer, str(tmp_path / "c.jsonl"), heldout=0.25, seed=7)
    assert [r.replies[0].tolist() for r in again.heldout] == [r.replies[0].tolist() for r in found.heldout]
    assert not read(workspace, tokenizer, str(tmp_path / "c.jsonl"), heldout=0).heldout


def test_no_more_is_held_out_than_is_measured(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    put("c", many(5), [row(f"say it {i}", ("good", "bad", "no")) for i in range(50)])
    assert len(read(workspace, tokenizer, "c", eval_pairs=10).heldout) == 4  # three pairs each
    assert not read(workspace, tokenizer, "c", eval_pairs=0).heldout


def test_long_and_tied_comparisons_are_left_out_whole_and_counted(
    put, workspace: Workspace, tokenizer: Tokenizer
) -> None:
    tied = {"prompt": "say", "responses": ["good", "bad"], "ranking": [0, 0]}
    put("c", [row("a"), row("b", ("good", "bad", "bad " * 120)), tied], [row("other")])
    found = read(workspace, tokenizer, "c")
    assert (len(found.train), found.too_long, found.tied) == (1, 1, 1)
    assert found.left_out == "1 longer than max_length; 1 tied throughout"


def test_unreadable_rows_are_named(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    put("c", [row("a"), "{", row("b", ("", "bad")), row("c", ("same", "same")), row("d")], [row("other")])
    found = read(workspace, tokenizer, "c")
    assert len(found.train) == 2 and [s.line for s in found.unreadable] == [2, 3, 4]
    assert found.reasons == {"not JSON": 1, "its replies are empty": 1, "its replies are equal": 1}
    assert found.left_out.startswith("3 unusable (1 ") and "the first: train.jsonl:2: not JSON" in found.left_out


def test_single_replies_that_are_empty_or_equal_are_counted(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    put("c", [row("a", ("good", "", "bad", "good")), row("b")], [row("other")])
    found = read(workspace, tokenizer, "c")
    assert found.train[0].ranks == (0, 1) and found.replies == {"empty": 1, "equal to another": 1}
    assert "single replies empty: 1; single replies equal to another: 1" in found.left_out


def test_a_comparison_that_is_there_twice_counts_once(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    turned = {"prompt": "a", "responses": ["bad", "good"], "ranking": [1, 0]}
    against = {"prompt": "a", "responses": ["bad", "good"], "ranking": [0, 1]}  # another opinion
    put("c", [row("a"), row("a"), turned, against], [row("other"), row("other")])
    put("d", [row("a"), row("b")], [row("other")])
    found = read(workspace, tokenizer, "c", "d")
    assert (len(found.train), len(found.heldout), found.repeated) == (3, 1, 5)
    assert "5 there twice" in found.left_out


def test_ties_are_kept_where_the_loss_takes_them(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    tied = {"prompt": "say", "responses": ["good", "bad"], "ranking": [0, 0]}
    put("c", [row("a"), tied], [row("other"), tied | {"prompt": "well"}])
    found = read(workspace, tokenizer, "c", loss={"ties": 1.0})
    assert [r.ties for r in found.train] == [[], [(0, 1)]]
    assert len(found.heldout) == 1 and found.tied == 1  # nothing to be right about


def test_a_margin_is_read_from_its_row(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    put("c", [row("a", margin=0.5), row("b", margin="much"), row("c", ("good", "bad", "no"))], [row("other")])
    assert [r.strengths for r in read(workspace, tokenizer, "c").train] == [[0.5], [1.0], [0.5, 1.0, 0.5]]


def test_a_model_without_the_chat_tokens_is_one_line(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    class Plain:
        specials: dict[str, int] = {}
        encode = staticmethod(tokenizer.encode)

    put("c", [row("a")], [row("other")])
    with pytest.raises(UserError, match=r"no token '<\|im_start\|>', so it cannot hold a conversation"):
        read(workspace, Plain(), "c")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "it is empty"),
        (["{"], "not JSON"),
        ([row(replies=("", " "))], "its replies are empty"),
        ([{"prompt": "say", "responses": ["good", "bad"], "ranking": [1, 1]}], "1 tied throughout"),
        ([row(replies=("good " * 90, "bad"))], "1 longer than max_length"),
    ],
)
def test_nothing_to_learn_from_is_said(put, workspace: Workspace, tokenizer: Tokenizer, rows: Any, said: str) -> None:
    put("c", rows)
    with pytest.raises(UserError, match=said):
        read(workspace, tokenizer, "c")


def test_a_damaged_artifact_is_named(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    path = put("c", many(3), many(2)).path / "heldout.jsonl"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=r"heldout\.jsonl: damaged"):
        read(workspace, tokenizer, "c")


def test_rows_are_told_apart_by_kind_source_or_input(put, workspace: Workspace, tokenizer: Tokenizer) -> None:
    put("c", [row("a", kind="sums"), row("b", source="web"), row("c")], [row("d")])
    put("e", [row("f")], [row("g")])
    assert [r.kind for r in read(workspace, tokenizer, "c").train] == ["sums", "web", ""]
    assert [r.kind for r in read(workspace, tokenizer, "c", "e").train] == ["sums", "web", "c", "e"]


def test_real_comparisons_are_read(data: Path, workspace: Workspace, tokenizer: Tokenizer) -> None:
    found = read(
        workspace, tokenizer, str(data / "pref/hh_rlhf_harmless_base.jsonl.gz"), longest=4096, eval_pairs=10**6
    )
    assert len(found.train) + len(found.heldout) + found.too_long == 1789
    assert 130 < len(found.heldout) < 230
