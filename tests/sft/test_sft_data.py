"""What is said about the data before anything is trained: mistakes by file and line, guesses, and one example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sft_made import little_tokenizer, make_model, rows, write_rows

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.chat_format import render
from llmctl.sft import data as sft_data
from llmctl.sft import stage
from llmctl.sft.config import SftConfig
from llmctl.sft.shown import runs, show


def config(path: Path, **changes: Any) -> SftConfig:
    small = {"eval_items": 0, "batch_tokens": 256, "train": {"steps": 2, "precision": "fp32"}, "heldout_share": 0}
    return SftConfig.model_validate({"model": "base", "conversations": [str(path)], **small, **changes})


def test_a_conversation_without_an_answer_is_an_error_unless_it_is_to_be_skipped(workspace, tmp_path, capsys):
    make_model(workspace)
    silent = {"messages": [{"role": "user", "content": "Anybody there?"}]}
    path = write_rows(tmp_path / "mine.jsonl", [*rows(20, 0), silent, {"messages": 7}])
    with pytest.raises(UserError, match=r"1 conversations have nothing .*mine\.jsonl:21: no assistant turn"):
        stage.run(config(path), workspace, Console())
    made = stage.run(config(path, unanswered="skip"), workspace, Console())
    assert made.figures["skipped_rows"] == 2
    said = capsys.readouterr().err
    assert "mine.jsonl:21: no assistant turn" in said and "mine.jsonl:22" in said and "left out: 2 unreadable" in said
    assert [line.partition(": ")[0][-2:] for line in (made.path / "left_out.txt").read_text().splitlines()] == [
        "21",
        "22",
    ]


def test_every_trouble_is_counted_and_the_first_are_named(workspace, tmp_path, capsys):
    make_model(workspace)
    path = write_rows(tmp_path / "mine.jsonl", [*rows(20, 0), *([{"who": "knows"}] * 30)])
    stage.run(config(path), workspace, Console())
    said = capsys.readouterr().err
    assert said.count("no known form") == 5 and "25 more, 30 in all" in said


def test_answers_before_their_reasoning_are_shown_and_dropped_on_request(workspace, tmp_path, capsys):
    make_model(workspace, context=256)
    guess = "The answer is 6. Each costs 2 and there are 3, so 2 * 3 = 6 in all."
    talk = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": guess}]}
    path = write_rows(tmp_path / "mine.jsonl", [*rows(20, 0), talk])
    made = stage.run(config(path), workspace, Console())
    said = capsys.readouterr().err
    assert "states its result before the reasoning: 'The answer is 6.'" in said
    assert made.figures["answer_first"] == 1 and made.figures["conversations"] == 21
    made = stage.run(config(path, answer_first="drop", out="other"), workspace, Console())
    assert made.figures["answer_first"] == 1 and made.figures["conversations"] == 20
    assert "1 that state the result first" in capsys.readouterr().err


def test_names_in_braces_are_filled_or_named(workspace, tmp_path, capsys):
    make_model(workspace)
    path = write_rows(
        tmp_path / "me.jsonl", [{"instruction": f"Who? {i}", "output": "I am {{name}}."} for i in range(9)]
    )
    stage.run(config(path), workspace, Console())
    assert "names in double braces stay in the text: name;" in capsys.readouterr().err
    found = sft_data.load([str(path)], 0.0, workspace, values={"name": "Wren"})
    assert found.train[0]["messages"][1]["content"] == "I am Wren." and not found.unfilled


def test_all_paths_of_a_tree_on_request(workspace, tmp_path):
    replies = [{"role": "assistant", "text": t, "rank": r, "replies": []} for r, t in enumerate(["good", "bad"])]
    path = write_rows(tmp_path / "t.jsonl", [{"prompt": {"role": "prompter", "text": "q", "replies": replies}}])
    assert len(sft_data.load([str(path)], 0.0, workspace).train) == 1
    assert len(sft_data.load([str(path)], 0.0, workspace, trees="all").train) == 2


def test_an_example_is_shown_token_for_token_with_what_is_learned(capsys):
    tokenizer = little_tokenizer()
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Please say red."},
        {"role": "assistant", "content": "It is red."},
    ]
    found = render(messages, tokenizer)
    show((found.ids, found.mask), tokenizer, "llmctl", Console())
    assert (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Please say red.<|im_end|>"
        "<|im_start|>assistant<|im_sep|>[[It is red.<|im_end|>]]"
    ) in capsys.readouterr().err
    assert "".join(text for text, _ in runs((found.ids, found.mask), tokenizer)) == tokenizer.decode(found.ids)
    long = render([*messages[:2], {"role": "assistant", "content": "very " * 2000}], tokenizer)
    show((long.ids, long.mask), tokenizer, "llmctl", Console())
    said = capsys.readouterr().err
    assert len(said) < 1800 and said.rstrip().endswith(" ...]]")


def test_the_example_comes_before_training_whatever_its_form(workspace, tmp_path, capsys):
    make_model(workspace)
    text = "".join(f"<|im_start|>{r}<|im_sep|>{c}<|im_end|>" for r, c in [("user", "hello?"), ("assistant", "It is.")])
    path = tmp_path / "p.txt"
    path.write_text("\n\n".join([text] * 4))
    stage.run(config(path), workspace, Console())
    said = capsys.readouterr().err
    assert "im_sep text, 4 conversations" in said and "[[It is.<|im_end|>]]" in said


def test_recipes_take_the_new_settings_as_the_manifest_gives_them_back():
    found = SftConfig.model_validate({"model": "a", "conversations": ["b"], "lora": {"rank": 4}})
    assert found.train.optimizer.name == "adamw" and found.train.optimizer.lr == 2e-3
    again = SftConfig.model_validate(json.loads(found.model_dump_json()))
    assert again == found
    asked = {"model": "a", "conversations": ["b"], "lora": {}, "train": {"optimizer": {"name": "muon"}}}
    assert SftConfig.model_validate(asked).train.optimizer.name == "muon"
    assert SftConfig.model_validate({"model": "a", "conversations": ["b"]}).train.optimizer.name == "muon"
