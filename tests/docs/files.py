"""The files that the docs' commands talk about, as a person might have them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

_PARAGRAPH = (
    "The library keeps a record of every book that has been lent, and the people of the town come to read it in the "
    "evening. When a book is returned, the keeper writes the day beside its name. Nobody has ever asked why. "
)


def write(folder: Path, site: str) -> None:
    """Make them all below `folder`. `site` is where `folder-of-html` can be had by HTTP."""
    for name in ("folder-of-html", "saved-pages", "folder-or-url-or-warc"):
        (folder / name).mkdir()
        for i in range(4):
            body = "".join(f"<p>Chapter {i}, part {j}. {_PARAGRAPH}</p>" for j in range(4))
            (folder / name / f"{i}.html").write_text(f"<html><head><title>{i}</title></head><body>{body}</body></html>")
    (folder / "notes.txt").write_text(_PARAGRAPH * 5)
    (folder / "book.txt").write_text(_PARAGRAPH * 60)
    runs = [f"{n},{d},{1.8 + 480 / n**0.35 + 2000 / d**0.37}" for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9, 1e10)]
    (folder / "runs.csv").write_text("\n".join(["parameters,tokens,loss", *runs]))
    (folder / "urls.txt").write_text(f"{site}0.html\n{site}1.html\n")
    (folder / "mine.py").write_text("def wanted(document):\n    return len(document['text']) > 100\n")
    _lines(folder / "chats.jsonl", [_chat(i) for i in range(12)])
    _lines(folder / "mine.jsonl", [{**_chat(i), "answer": str(2 * i), "check": "number"} for i in range(6)])
    alpaca = [{"instruction": f"Double {i}.", "input": "", "output": f"It is {2 * i}."} for i in range(12)]
    (folder / "alpaca_data.json").write_text(json.dumps(alpaca))
    pairs = [_pair(i) for i in range(12)]
    _lines(folder / "pairs.jsonl", pairs)
    (folder / "hh-rlhf/harmless-base").mkdir(parents=True)
    _lines(folder / "hh-rlhf/harmless-base/train.jsonl", pairs)
    rivers = [{"question": f"Which river is {i}?", "choices": ["the Nile", "the Po"], "right": i % 2} for i in range(6)]
    _lines(folder / "rivers.jsonl", rivers)
    (folder / "rivers.yaml").write_text(
        "task: rivers\ndataset_path: json\ndataset_kwargs: {data_files: {test: rivers.jsonl}}\ntest_split: test\n"
        'output_type: multiple_choice\nfewshot_split: test\nnum_fewshot: 1\ndoc_to_text: "{{question}}"\n'
        "doc_to_choice: choices\ndoc_to_target: right\n"
    )
    with gzip.open(folder / "oasst_trees.jsonl.gz", "wt") as f:
        f.writelines(json.dumps(_tree(i)) + "\n" for i in range(6))


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def _chat(i: int) -> dict:
    turns = [{"role": "user", "content": f"Double {i}."}, {"role": "assistant", "content": f"It is {2 * i}."}]
    return {"messages": turns}


def _pair(i: int) -> dict:
    asked = f"\n\nHuman: Double {i}.\n\nAssistant: "
    return {"chosen": f"{asked}It is {2 * i}.", "rejected": f"{asked}No."}


def _tree(i: int) -> dict:
    replies = [
        {"text": f"It is {2 * i}.", "role": "assistant", "rank": 0},
        {"text": "No.", "role": "assistant", "rank": 1},
    ]
    prompt = {"text": f"Double {i}.", "role": "prompter", "replies": [{**r, "replies": []} for r in replies]}
    return {"message_tree_id": str(i), "tree_state": "ready_for_export", "prompt": prompt}
