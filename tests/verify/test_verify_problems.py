"""Problems: right, reproducible, and held out for good."""

from __future__ import annotations

import contextlib
import io
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.verify import KINDS, Item, check, held_out, problems
from llmctl.verify.facts import PEOPLE, PLACES, THINGS
from llmctl.verify.lookup import LookupOptions, library
from llmctl.verify.sums import carries, value, worked


def run_here(code: str) -> str:
    """The sandbox's stand-in: these programs are the ones that this package makes."""
    kept = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert sys.stdout is kept
    return out.getvalue()


def said(item: Item) -> str:
    content = item.messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heldout", [False, True])
def test_the_taught_reply_is_right_and_in_form(kind: str, heldout: bool) -> None:
    items = problems(kind, 300, 1, heldout)
    assert items
    for item in items:
        verdict = check(item, said(item), run_here)
        assert verdict.correct and verdict.formatted, (item.question, said(item))
        assert check(item.row(), said(item), run_here) == verdict
        assert item.heldout is heldout and item.messages[0] == {"role": "user", "content": item.question}
        assert (item.question + said(item)).isascii()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_problems_and_another_seed_others(kind: str) -> None:
    assert problems(kind, 50, 3, False) == problems(kind, 50, 3, False)
    assert problems(kind, 50, 3, False) != problems(kind, 50, 4, False)


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_heldout_are_disjoint_whatever_the_seeds(kind: str) -> None:
    train = {i.question for seed in range(3) for i in problems(kind, 500, seed, False)}
    apart = {i.question for seed in range(3) for i in problems(kind, 200, seed, True)}
    assert train and apart and not train & apart


def test_a_heldout_sum_is_not_trained_on_in_other_words_or_turned_round() -> None:
    def key(item: Item) -> frozenset[str]:
        return frozenset(re.findall(r"[0-9]+", item.question))

    train = {key(i) for i in problems("sums", 2000, 0, False, digits=[2, 2])}
    assert not train & {key(i) for i in problems("sums", 300, 0, True, digits=[2, 2])}


def test_heldout_names_and_entities_are_new_but_their_documents_are_in_the_library() -> None:
    for kind, group in (("names", "made-up"), ("lookup", "")):
        train = {i.answer if group else i.document["title"] for i in problems(kind, 1000, 0, False) if group in i.group}
        apart = {i.answer if group else i.document["title"] for i in problems(kind, 200, 0, True) if group in i.group}
        assert apart and not train & apart
    items = problems("lookup", 50, 0, True)
    pages = library(items, options=LookupOptions(distractors=10))
    assert {i.document["title"] for i in items} <= {p["title"] for p in pages}
    assert 50 < len(pages) <= 60


def test_known_names_are_held_out_by_wording() -> None:
    def wording(item: Item) -> str:
        names = [n for table in (PEOPLE, PLACES, THINGS) for n, _, _ in table if n in item.question]
        return item.question.replace(max(names, key=len), "{}")

    train = {wording(i) for i in problems("names", 2000, 0, False, known=1.0)}
    apart = {wording(i) for i in problems("names", 100, 0, True, known=1.0)}
    assert apart and not train & apart
    made_up = [i for i in problems("names", 500, 0, False, known=0.0) if i.check == "refusal"]
    assert len(made_up) == 500


def test_about_a_tenth_is_held_out() -> None:
    assert 900 < sum(held_out(f"question {i}") for i in range(10_000)) < 1100
    assert held_out("What  is 1 + 2?") == held_out("what is 1 + 2?")


def test_held_out_membership_never_changes() -> None:
    """Models and reports out there rely on this very split."""
    assert [i for i in range(40) if held_out(str(i))] == [0, 7, 9, 10, 33]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_worked_sums_agree_with_the_machine(data: st.DataObject) -> None:
    sign = data.draw(st.sampled_from("+-*"))
    count = data.draw(st.integers(2, 9)) if sign == "+" else 2
    numbers = data.draw(st.lists(st.integers(1, 10**9), min_size=count, max_size=count))
    if sign == "-":
        numbers.sort(reverse=True)
    elif sign == "*":
        numbers[1] = data.draw(st.integers(2, 9))
    answer, steps = worked(numbers, sign)
    assert answer == value(numbers, sign)
    for line in steps.split("\n"):
        left, right = line.split("=")
        assert eval(without_leading_zeros(left)) == int(right)
    for column in carries(numbers, sign):
        assert worked(numbers, sign, slip=column)[0] != answer


def without_leading_zeros(left: str) -> str:
    """Python takes no leading zeros in a literal."""
    return re.sub(r"\b0+(?=[0-9])", "", left)


def test_a_worked_sum_by_hand() -> None:
    assert worked([47, 38], "+") == (85, "7+8+0=15\n4+3+1=08")
    assert worked([47, 38], "+", slip=0) == (75, "7+8+0=15\n4+3+0=07")
    assert worked([999, 1], "+") == (1000, "9+1+0=10\n9+0+1=10\n9+0+1=10")
    assert worked([47, 8], "*") == (376, "7*8+0=56\n4*8+5=37")
    assert worked([47, 38], "-") == (9, "17-8-0=9\n04-3-1=0")
    assert worked([9] * 9, "+") == (81, "9+9+9+9+9+9+9+9+9+0=81")


@pytest.mark.parametrize("options", [{"digits": [4, 6]}, {"operators": ["-"]}, {"operators": ["*"]}, {"terms": 4}])
def test_sums_obey_their_options(options: dict) -> None:
    for item in problems("sums", 100, 0, False, **options):
        numbers = [int(n) for n in re.findall(r"[0-9]+", item.question)]
        assert int(item.answer) == value(numbers, item.group)
        assert len(numbers) == options.get("terms", 2)
        if "digits" in options:
            assert all(4 <= len(str(n)) <= 6 for n in numbers)


def test_python_code_gives_the_output_that_the_conversation_shows(capsys: pytest.CaptureFixture[str]) -> None:
    for item in problems("python", 300, 0, False):
        code, output, _ = (part["text"] for part in item.messages[-1]["content"])
        exec(code, {})
        assert capsys.readouterr().out.strip() == output == item.answer


def test_identity_says_what_it_was_told() -> None:
    items = problems("identity", 400, 0, False, name="Wren", maker="Ada and Bo", version="7.2")
    text = " ".join(said(i) for i in items)
    assert "Wren" in text and "Ada and Bo" in text and "7.2" in text and "Sprout" not in text
    assert len({i.question for i in problems("identity", 2000, 0, False)}) > 600


def test_repeats_in_training_but_never_among_the_heldout() -> None:
    assert len(problems("sums", 500, 0, False, digits=[1, 1])) == 500
    apart = problems("sums", 500, 0, True, digits=[1, 1])
    assert len({i.id for i in apart}) == len(apart) < 500


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'sums'"):
        problems("sum", 1, 0, False)
    with pytest.raises(UserError, match="digits"):
        problems("sums", 1, 0, False, digits=[3, 2])
    with pytest.raises(UserError, match="did you mean 'digits'"):
        problems("sums", 1, 0, False, digit=[3, 2])


def test_facts_hold_their_key_and_no_two_kinds_share_a_name() -> None:
    names = [n for table in (PEOPLE, PLACES, THINGS) for n, _, _ in table]
    assert 60 <= len(names) == len(set(names))
    for table in (PEOPLE, PLACES, THINGS):
        for name, sentence, key in table:
            assert key in sentence and sentence.lower().startswith(name.lower()), name


def test_documents_follow_from_the_name_alone() -> None:
    pages: dict[str, str] = {}
    for seed in range(3):
        for item in problems("lookup", 300, seed, False):
            page = item.document
            assert page and pages.setdefault(page["title"], page["text"]) == page["text"]
            assert item.answer in page["text"]
