from __future__ import annotations

import shutil

import pytest

from llmctl.errors import UserError
from llmctl.eval.lineage import lineage
from llmctl.eval.subjects import subjects
from llmctl.workspace import Workspace


def test_ancestors_are_found_once_and_the_nearest_first(shelf, workspace: Workspace) -> None:
    shelf.tokens("tokens")
    shelf.model("base", "pretrain", ["tokens"])
    shelf.conversations("talks")
    shelf.model("chat", "sft", ["base", "talks"])
    better = shelf.model("better", "rl", ["chat", "talks", "base"])
    found = lineage(workspace, [better])
    assert [a.name for a in found.artifacts] == ["better", "chat", "talks", "base", "tokens"]
    assert not found.lost


def test_what_was_made_again_since_is_no_ancestor(shelf, workspace: Workspace) -> None:
    talks = shelf.conversations("talks")
    chat = shelf.model("chat", "sft", ["talks"])
    shutil.rmtree(talks.path)
    assert lineage(workspace, [chat]).lost == ["conversations 'talks' is gone"]
    shelf.conversations("talks", n=5)
    found = lineage(workspace, [chat])
    assert found.lost == ["conversations 'talks' was made again since"]
    assert [a.name for a in found.artifacts] == ["chat"]


def test_a_model_is_told_apart_by_what_it_was_taught(shelf, workspace: Workspace) -> None:
    shelf.model("base", "pretrain")
    shelf.model("chat", "sft", ["base"])
    shelf.model("continued", "pretrain", ["chat"])
    shelf.rows("comparisons", "judged", [])
    shelf.reward("judge", ["judged", "chat"])
    found = subjects(["base", "chat", "continued", "judge"], workspace)
    assert [s.chats for s in found] == [False, True, True, False]
    assert [s.rewards for s in found] == [False, False, False, True]


def test_folders_from_elsewhere_have_a_column_of_their_own(shelf, workspace: Workspace, tmp_path) -> None:
    here = shelf.model("chat", "sft")
    away = tmp_path / "elsewhere" / "chat"
    shutil.copytree(here.path, away)
    found = subjects(["chat", str(away)], workspace)
    assert [s.label for s in found] == ["chat", "chat-2"]
    assert found[1].chats and not found[1].lineage.artifacts
    (away / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        subjects([str(away)], workspace)
    with pytest.raises(UserError, match="not in the cache"):
        subjects(["hf:org/name"], workspace)
