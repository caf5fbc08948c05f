"""Programs of a model against tests, in the sandbox: the check "code" and the tool together."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from llmctl.tools import python
from llmctl.tools.python import run_python
from llmctl.verify import check, problems

pytestmark = pytest.mark.skipif(not python.isolated(), reason=f"no isolation here: {python.why_off()}")
ROW = {"check": "code", "answer": "\n# ---- the reply ----\nassert double(2) == 4\nassert double(-3) == -6"}


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("```python\ndef double(n):\n    return 2 * n\n```", True),
        ("Like this:\n```\nprint('x' * 100000)\ndef double(n): return n + n\n```", True),
        ("```python\nfrom __future__ import annotations\nimport math\ndouble = lambda n: n * 2\n```", True),
        ("```python\ndef double(n):\n    return n * n\n```", False),
        ("```python\ndef double(n):\n    return 4\n```", False),
        ("```python\nimport sys; sys.exit(0)\n```", False),
        ("```python\nimport os; os._exit(0)\n```", False),
        ("```python\nprint('passed'); raise SystemExit\n```", False),
        ("```python\ndef double(n):\n    while True: pass\n```", False),
        ("```python\nimport os; os.fork()\n```", False),
        ("```python\ndef double(n:\n```", False),
        ("no program", False),
        ("", False),
    ],
)
def test_only_passing_passes(reply: str, right: bool) -> None:
    assert check(ROW, reply, run=lambda code: run_python(code, seconds=0.5)).correct is right


def test_made_problems_are_passed_by_their_solutions() -> None:
    for item in problems("code", 40, 0, False):
        assert check(item, item.messages[-1]["content"], run_python).correct


def test_published_problems_are_passed_by_their_solutions(data: Path) -> None:
    items = problems("code", 40, 0, False, file=str(data / "eval" / "mbpp_train_valid.jsonl.gz"))
    verdicts = [check(item, item.messages[-1]["content"], run_python) for item in items]
    assert all(v.correct and v.formatted for v in verdicts), [
        i.question for i, v in zip(items, verdicts, strict=True) if not v.correct
    ]
    for one, other in pairwise(items[:11]):
        assert not check(one, other.messages[-1]["content"], run_python).correct


def test_problems_in_the_form_of_humaneval(tmp_path: Path) -> None:
    prompt = (
        'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """ The sum.\n    >>> total([1])\n    """\n'
    )
    tests = "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n"
    row = {"prompt": prompt, "entry_point": "total", "canonical_solution": "    return sum(xs)\n", "test": tests}
    file = tmp_path / "h.jsonl"
    file.write_text("".join(json.dumps({**row, "prompt": prompt + f"    # {i}\n"}) + "\n" for i in range(30)))
    for item in problems("code", 3, 0, False, file=str(file), style="humaneval"):
        assert check(item, item.messages[-1]["content"], run_python).correct
        assert check(item, "```python\n    return sum(xs)\n```", run_python).correct  # only the body
        assert not check(item, "```python\n    return len(xs)\n```", run_python).correct
