"""The kinds of verifiable problems: what is right, what is not, and what a hostile reply gets."""

from __future__ import annotations

import gzip
import json
import re
import time
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.verify import check, problems
from llmctl.verify.code import passes, program_in
from llmctl.verify.countdown import normal_expression, solves
from llmctl.verify.decimals import compared
from llmctl.verify.expression import evaluate
from llmctl.verify.forms import boxed, has_think_form, stated
from llmctl.verify.gsm8k import INVALID, flexible, matches, strict
from llmctl.verify.letters import spelled_with_count
from llmctl.verify.mathematics import equivalent
from llmctl.verify.statistics import pass_at_k

# ---- forms


@pytest.mark.parametrize(
    ("reply", "has_it"),
    [
        ("<think>hm</think><answer>85</answer>", True),
        ("<think>\nhm\n</think>\n<answer>\n85\n</answer>\n", True),
        ("so <think>hm</think><answer>85</answer>", False),
        ("<think>hm</think><answer>85</answer> done", False),
        ("<think>hm</think> so <answer>85</answer>", False),
        ("<think></think><answer>85</answer>", False),
        ("<think>hm</think><answer> </answer>", False),
        ("<answer>85</answer><think>hm</think>", False),
        ("<think>hm<answer>85</answer></think>", False),
        ("<think>hm</think><answer>85", False),
        ("<think>a</think><think>b</think><answer>85</answer>", False),
        ("<think>hm</think><answer>1</answer><answer>2</answer>", False),
        ("", False),
    ],
)
def test_the_format_rule_of_r1(reply: str, has_it: bool) -> None:
    assert has_think_form(reply) is has_it
    assert check({"answer": "85", "check": "number", "form": "think"}, reply).formatted is has_it


def test_right_and_formatted_are_judged_apart() -> None:
    row = {"answer": "85", "check": "number", "form": "think"}
    for reply, correct, formatted in (
        ("<think>40+45</think><answer>85</answer>", True, True),
        ("<think>40+45=85</think><answer>84</answer>", False, True),
        ("The answer is 85.", True, False),
    ):
        verdict = check(row, reply)
        assert (verdict.correct, verdict.formatted) == (correct, formatted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("so \\boxed{5}", ("5", True)),
        ("The answer is \\boxed{5}.", ("5", True)),
        ("<answer>\\boxed{5}</answer>", ("5", True)),
        ("\\boxed{4} no, \\boxed{5}", ("5", False)),
        ("\\boxed{\\frac{1}{2}}", ("\\frac{1}{2}", True)),
        ("\\boxed{\\boxed{5}}", ("\\boxed{5}", True)),
        ("\\boxed{5", (None, False)),
        ("\\boxed{1} is wrong.\nThe answer is 2.", ("2.", False)),
    ],
)
def test_what_a_box_states(text: str, said: tuple[str | None, bool]) -> None:
    assert stated(text) == said


@given(st.text(alphabet="\\boxed{}1 ", max_size=60))
def test_boxes_are_balanced_and_do_not_overlap(text: str) -> None:
    end_before = 0
    for start, end, inner in boxed(text):
        assert start >= end_before and text[start:end].endswith(inner + "}")
        assert inner.count("{") - inner.count("\\{") >= inner.count("}") - inner.count("\\}") or "\\" in inner
        end_before = end


@pytest.mark.parametrize("kind", ["sums", "countdown", "letters", "spelling", "decimals", "gsm8k", "math"])
@pytest.mark.parametrize("form", ["answer", "hashes", "boxed", "think"])
def test_every_kind_teaches_every_form(kind: str, form: str) -> None:
    mark = {"answer": "The answer is ", "hashes": "#### ", "boxed": "\\boxed{", "think": "</think><answer>"}[form]
    for item, plain in zip(problems(kind, 50, 0, False, form=form), problems(kind, 50, 0, False), strict=True):
        reply = item.messages[-1]["content"]
        verdict = check(item.row(), reply)
        assert verdict.correct and verdict.formatted, (reply, verdict)
        assert reply.count(mark) == 1 and has_think_form(reply) is (form == "think")
        assert (item.question, item.answer, item.id) == (plain.question, plain.answer, plain.id)


# ---- countdown


@pytest.mark.parametrize(
    ("answer", "expression", "right"),
    [
        ("98 from all of 44 19 35", "(44+19)+35", True),
        ("98 from all of 44 19 35", "35 + 44 + 19 = 98", True),
        ("98 from all of 44 19 35", "44+19+34+1", False),  # other numbers
        ("98 from all of 44 19 35", "98", False),
        ("98 from all of 44 19 35", "44+19+35+44-44", False),  # one twice
        ("63 from all of 44 19 35", "44+19", False),  # one left out
        ("63 from 44 19 35", "44+19", True),
        ("8 from all of 2 2 2", "2*2*2", True),
        ("8 from all of 2 2 3", "2*2*2", False),
        ("24 from all of 3 3 8 8", "8/(3-8/3)", True),  # through fractions
        ("1 from all of 5 5", "5/5", True),
        ("0 from all of 5 5", "5//5", False),
        ("25 from all of 5 2", "5**2", False),
        ("52 from all of 5 2", "52", False),  # digits are not glued together
        ("5 from all of 5 0", "5/0", False),
        ("98 from all of 44 19 35", "4 4+19+35", False),
        ("98 from all of 44 19 35", "44\u00d719", False),
        ("836 from all of 44 19", "44 \u00d7 19", True),
        ("836 from all of 44 19", "$44 \\times 19$", True),
        ("98 from all of 44 19 35", "__import__('os').system('x')", False),
        ("98 from all of 44 19 35", "(" * 100 + "44+19+35" + ")" * 100, False),
        ("98 from all of 44 19 35", "", False),
        ("nonsense", "1", False),
    ],
)  # fmt: skip
def test_countdown_by_hand(answer: str, expression: str, right: bool) -> None:
    assert solves(answer, normal_expression(expression)) is right


def test_countdown_is_solvable_and_its_lines_are_true() -> None:
    for item in problems("countdown", 300, 0, False, numbers=[2, 5], tries=[1, 3]):
        target, numbers = int(item.answer.split(" ")[0]), [int(n) for n in item.answer.split("of ")[1].split()]
        *tries, hit, last = item.messages[-1]["content"].split("\n")
        assert 1 <= len(tries) <= 3 and last.startswith("The answer is ")
        for line in [*tries, hit]:
            left = list(numbers)
            for a, sign, b, value in re.findall(r"(\d+)([-+*/])(\d+)=(\d+)", line):
                left.remove(int(a))
                left.remove(int(b))
                left.append(int(value))
                exact = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}
                assert exact.get(sign, Fraction(int(a), int(b))) == int(value)
            assert len(left) == 1 and (left[0] == target) is line.endswith("yes") is not line.endswith("no")


def test_countdown_with_settings_that_leave_nothing_ends() -> None:
    with pytest.raises(UserError, match="hardly ever"):
        problems("countdown", 1, 0, False, numbers=[2, 2], largest=3, target=[90_000, 99_999])
    item = problems("countdown", 1, 0, False, numbers=[2, 2], largest=2, target=[2, 2])[0]  # 1 + 1, and no other way
    assert check(item, item.messages[-1]["content"]).correct


def test_the_countdown_check_agrees_with_brute_force() -> None:
    """Every expression of three numbers, by Python's own arithmetic with fractions."""
    for a, b, c in permutations((3, 7, 21)):
        for f, g in product("+-*/", repeat=2):
            for text in (f"({a}{f}{b}){g}{c}", f"{a}{f}({b}{g}{c})", f"{a}{f}{b}{g}{c}"):
                try:
                    value = eval(re.sub(r"(\d+)", r"Fraction(\1)", text), {"Fraction": Fraction})
                except ZeroDivisionError:
                    value = None
                assert evaluate(text) == value
                for target in (0, 1, 31, 25):
                    assert solves(f"{target} from all of 3 7 21", text) is (value == target)


# ---- letters, spelling, decimals


def test_letters_are_counted() -> None:
    assert spelled_with_count("strawberry", "r") == "s0 t0 r1 a1 w1 b1 e1 r2 r3 y3"
    for item in problems("letters", 200, 0, False):
        steps = item.messages[-1]["content"].split("\n")[0].split(" ")
        assert re.search(r"[0-9]+$", steps[-1])[0] == item.answer
        quoted = re.findall(r'"(\w+)"', item.question)
        if item.group == "letters":
            letter = quoted[0] if len(quoted) == 2 else re.search(r"many (\w)'s", item.question)[1]
            assert quoted[-1].count(letter) == int(item.answer)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("The answer is s-t-r.", True),
        ("S T R", True),
        ("s, t, r.", True),
        ("str", False),
        ("s-t-r-r", False),
        ("st-r", False),
        ("", False),
    ],
)
def test_spelling_out(reply: str, right: bool) -> None:
    assert check({"answer": "s-t-r", "check": "spelled"}, reply).correct is right


def test_decimals_by_hand() -> None:
    assert compared("9.11", "9.9") == ("9.11 9.90\n9=9 1<9", False)
    assert compared("10.5", "9.75") == ("10.50 9.75\n10>9", True)
    groups = set()
    for item in problems("decimals", 300, 0, False):
        a, b = re.findall(r"[0-9]+\.[0-9]+", item.question)
        wanted = max if "larger" in item.question else min
        assert Fraction(item.answer) == wanted(Fraction(a), Fraction(b))
        groups.add(item.group)
    assert groups == {"plain", "trap"}


# ---- gsm8k


@pytest.mark.parametrize(
    ("reply", "by_strict", "by_flexible"),
    [
        # What the filters `#### (\-?[0-9\.\,]+)` (first) and `(-?[$0-9.,]{2,})|(-?[0-9]+)` (last) give.
        ("so 3+4=7\n#### 7", "7", "7"),
        ("#### 1,080 dollars", "1,080", "1,080"),
        ("#### -5.", "-5.", "-5."),
        ("#### 1 and #### 2", "1", "2"),
        ("####7", INVALID, "7"),
        ("#### $7", INVALID, "$7"),
        ("The answer is $18.00.", INVALID, "$18.00."),
        ("nothing", INVALID, INVALID),
        ("", INVALID, INVALID),
        ("it is 5...", INVALID, "5..."),
        ("7 apples, or so.", INVALID, "7"),
    ],
)
def test_gsm8k_answers_are_extracted_as_the_harness_does(reply: str, by_strict: str, by_flexible: str) -> None:
    assert (strict(reply), flexible(reply)) == (by_strict, by_flexible)


def test_gsm8k_answers_are_compared_as_the_harness_does() -> None:
    assert matches("1,080", "steps <<1*1=1>> 5\n#### 1080") and matches("$18.", "#### 18")
    assert not matches("18.00", "#### 18") and not matches(INVALID, "#### 18")


def test_gsm8k_from_the_real_file(data: Path) -> None:
    file = str(data / "eval" / "gsm8k_train.jsonl")
    items = problems("gsm8k", 300, 0, False, file=file)
    apart = problems("gsm8k", 5000, 0, True, file=file)
    assert 600 < len(apart) < 900 and not {i.question for i in items} & {i.question for i in apart}
    for item in items:
        reply = item.messages[-1]["content"]
        assert check(item, reply).correct and check(item, reply).formatted and "<<" not in reply
        assert strict(reply) == item.answer or strict(reply).replace(",", "") == item.answer
    rows = {json.loads(line)["question"].strip(): line for line in Path(file).read_text().split("\n") if line}
    assert all(i.answer == re.sub(",", "", json.loads(rows[i.question])["answer"].split("#### ")[1]) for i in items)


def test_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        problems("gsm8k", 1, 0, False, file=str(tmp_path / "none.jsonl"))
    broken = tmp_path / "a.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"question": "a", "answer": "#### 1"}\n{"question": "b"}\n'))
    with pytest.raises(UserError, match=r"a\.jsonl\.gz:2"):
        problems("gsm8k", 1, 0, False, file=str(broken))


# ---- math


@pytest.mark.parametrize(
    ("said", "answer", "same"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("\\dfrac{1}{2}", "\\frac12", True),
        ("\\frac1{2}", "1/2", True),
        ("-\\frac{3}{4}", "\\frac{-3}{4}", True),
        ("2\\frac{1}{2}", "2.5", True),
        ("-2\\frac{1}{2}", "-2.5", True),
        ("\\frac{\\frac{1}{2}}{3}", "1/6", True),
        ("50\\%", "50", True),
        ("$18", "18", True),
        ("1,000,000", "1000000", True),
        ("90^\\circ", "90", True),
        ("5 \\text{ cm}", "5", True),
        ("x = 5", "5", True),
        ("x=5", "6", False),
        ("2\\sqrt{3}", "\\sqrt{12}", True),
        ("\\sqrt{9}", "3", True),
        ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", True),
        ("2\\pi", "6.283185307179586", True),
        ("2\\pi", "6.28", False),
        ("2^{10}", "1024", True),
        ("2^{-1}", "0.5", True),
        ("(1, 2)", "(1,2)", True),
        ("(1,2)", "(2,1)", False),
        ("(0.5, 2)", "(\\frac{1}{2}, 2)", True),
        ("[0,1)", "[0,1]", False),
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("1, -2", "-2, 1", True),
        ("\\left(3, \\frac{\\pi}{2}\\right)", "(3,\\pi/2)", True),
        ("x^2+1", "x^2 + 1", True),
        ("x^2+1", "1+x^2", False),  # algebra is not done here
        ("\\text{(A)}", "\\text{(A)}", True),
        ("\\text{Monday}", "Monday", True),
        ("Monday", "Tuesday", False),
        ("", "", False),
        ("1/0", "1/0", True),
        ("1/0", "0", False),
        ("nan", "0", False),
        ("inf", "1e999", False),
        ("\u0665", "5", False),  # Arabic-Indic digits
        ("0.333", "1/3", False),
        (".5", "0.50", True),
        ("5.", "5", True),
    ],
)
def test_math_equivalence_by_hand(said: str, answer: str, same: bool) -> None:
    assert equivalent(said, answer) is same
    assert equivalent(answer, said) is same
    assert check({"answer": answer, "check": "math"}, f"so \\boxed{{{said}}}").correct is same


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_equal_if_and_only_if_they_are(a: Fraction, b: Fraction) -> None:
    assert equivalent(f"\\frac{{{a.numerator}}}{{{a.denominator}}}", f"{b.numerator}/{b.denominator}") is (a == b)
    assert equivalent(f"\\frac{{{7 * a.numerator}}}{{{7 * a.denominator}}}", f"{a.numerator}/{a.denominator}")


def test_a_file_in_the_form_of_math(tmp_path: Path) -> None:
    file = tmp_path / "math.jsonl"
    rows = [
        {"problem": f"What is {i}/2?", "solution": f"Half of it: $\\boxed{{\\frac{{{i}}}{{2}}}}$.", "type": "Algebra"}
        for i in range(60)
    ]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    for item in problems("math", 30, 0, False, file=str(file)):
        reply = item.messages[-1]["content"]
        assert reply.count("\\boxed") == 1 and check(item, reply).correct and check(item, reply).formatted
        assert item.group == "Algebra"


# ---- code


def test_the_program_is_the_last_block() -> None:
    assert program_in("```python\na = 1\n```\nor\n```\nb = 2\n```") == "b = 2\n"
    assert program_in("```py\na = 1") == "a = 1"
    assert program_in("def f(): return 1") == "def f(): return 1"


def test_a_program_says_itself_that_it_passed_only_by_passing() -> None:
    said = []

    def run(code: str) -> str:
        said.append(code)
        return "passed"

    assert not passes("\n# ---- the reply ----\nassert f() == 1", "def f(): return 1", run)
    assert len({re.findall(r"print\('(\w{16})'\)", code)[0] for code in said * 1}) == 1
    assert not passes("no tests", "def f(): return 1", run) and len(said) == 1
    assert not passes("\n# ---- the reply ----\nassert 1", "x" * 20_000, run) and len(said) == 1
    with pytest.raises(UserError, match="python tool"):
        check({"answer": "", "check": "code"}, "x")


@pytest.mark.parametrize(("n", "correct", "k", "value"), [(5, 0, 1, 0), (5, 5, 3, 1), (4, 1, 2, 0.5), (10, 3, 1, 0.3)])
def test_pass_at_k_by_hand(n: int, correct: int, k: int, value: float) -> None:
    assert pass_at_k(n, correct, k) == pytest.approx(value)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(case: tuple[int, int, int]) -> None:
    from itertools import combinations

    n, correct, k = case
    subsets = list(combinations(range(n), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(min(s) < correct for s in subsets) / len(subsets))


# ---- hostile text

HOSTILE = [
    "9" * 10**6,
    "\\boxed{" * 10**5,
    "\\boxed{" * 10**5 + "}" * 10**5,
    "\\boxed{" + "{" * 10**6,
    "\\boxed{" + "(" * 300 + "1" + ")" * 300 + "}",
    "\\boxed{" + "9^" * 60 + "9}",
    "\\boxed{9^{9^{9^{9}}}}",
    "\\boxed{2^(64)^(64)^(64)}",
    "\\boxed{" + "\\sqrt{" * 40 + "2" + "}" * 40 + "}",
    "\\boxed{" + "\\frac{1}{" * 30 + "2" + "}" * 30 + "}",
    "\\boxed{" + "1," * 190 + "}",
    "\\boxed{" + "\\left" * 60 + "}",
    "\\boxed{1" + "0" * 300 + "}",
    "\\boxed{nan}",
    "\\boxed{inf}",
    "\\boxed{1e999}",
    "\\boxed{-" + "-" * 350 + "1}",
    "<think>" * 10**5 + "</answer>" * 10**5,
    "<think>" + "a" * 10**6 + "</think><answer>" + "1+" * 10**5 + "</answer>",
    "<answer>" + "(" * 190 + "</answer>",
    "<answer>44+19+35" + " " * 10**6 + "</answer>",
    "```python\n" * 10**5,
    "```" * 10**5,
    "#### " + "1," * 10**6,
    "#### \u0669\u0669",
    "The answer is __import__('os').system('touch /tmp/escaped').",
    "The answer is (lambda: exec('raise SystemExit'))().",
    "The answer is " + "s-" * 10**6,
    "a" * 10**6 + "!",
    "\ud800\udfff\x00\u202e" * 1000,
    " " * 10**6,
    "\n" * 10**6,
    "$" * 10**6,
    "\\text{" * 10**5,
    "=" * 10**6,
]
ROWS = [
    {"answer": "85", "check": "number"},
    {"answer": "98 from all of 44 19 35", "check": "countdown"},
    {"answer": "\\frac{1}{3}", "check": "math"},
    {"answer": "(1, 2)", "check": "math"},
    {"answer": "s-t-r", "check": "spelled"},
    {"answer": "\n# ---- the reply ----\nassert f() == 1", "check": "code"},
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["check"])
@pytest.mark.parametrize("form", ["", "think"])
def test_hostile_replies_get_a_verdict_at_once(row: dict, form: str) -> None:
    for reply in HOSTILE:
        begun = time.process_time()
        verdict = check({**row, "form": form}, reply, run=lambda _: "")
        assert not verdict.correct and len(verdict.answer or "") <= 2000, reply[:60]
        # Not how fast it is, but that it ends: each of these took minutes, or all memory, in a naive form.
        assert time.process_time() - begun < 2, reply[:60]


def test_hostile_replies_are_extracted_from_at_once() -> None:
    for reply in HOSTILE:
        begun = time.process_time()
        assert isinstance(strict(reply) + flexible(reply), str)
        assert time.process_time() - begun < 2, reply[:60]


@settings(max_examples=400, deadline=None)
@given(
    st.text(max_size=300) | st.text(alphabet="\\{}()[]0123456789+-*/^., frac sqrtboxed$%<>answerthink#=", max_size=300),
    st.sampled_from(ROWS),
    st.sampled_from(["{}", "\\boxed{{{}}}", "<answer>{}</answer>", "The answer is {}.", "#### {}"]),
)
def test_any_text_gets_a_verdict(text: str, row: dict, shape: str) -> None:
    check(row, shape.format(text), run=lambda _: "")
    equivalent(text, row["answer"])
    equivalent(row["answer"], text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/^(). sqrtpi", max_size=60))
def test_a_value_is_small_and_finite_or_none(text: str) -> None:
    value = evaluate(text)
    if isinstance(value, Fraction):
        assert max(value.numerator.bit_length(), value.denominator.bit_length()) <= 400
    elif value is not None:
        assert value == value and abs(value) != float("inf")
