"""The quality classifier: trained the same each time, measured honestly, applied as DCLM applies its own."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from llmctl.errors import UserError
from llmctl.filter import quality
from llmctl.filter.config import FilterConfig, QualitySettings
from llmctl.filter.quality import Quality
from llmctl.filter.quality_training import auc, line_of, train
from llmctl.filter.row import Row
from llmctl.formats.document import Document
from llmctl.workspace import Workspace

SMALL = {"dimensions": 8, "buckets": 1000, "epochs": 20, "learning_rate": 0.5}
GOOD = [
    "the",
    "theorem",
    "proof",
    "follows",
    "because",
    "we",
    "explain",
    "every",
    "step",
    "of",
    "this",
    "argument",
    "carefully",
]
BAD = ["buy", "cheap", "now", "click", "here", "best", "price", "free", "casino", "bonus", "offer", "limited"]
COMMON = ["and", "a", "to", "in", "it", "is", "for", "on", "with", "as", "at", "by"]


def texts(words: list[str], count: int, seed: int) -> list[str]:
    rnd = random.Random(seed)
    return [" ".join(rnd.choices(words + COMMON, k=30)) + f"\n{i}" for i in range(count)]


def settings(**changed: object) -> QualitySettings:
    return QualitySettings.model_validate({**SMALL, **changed})


def score(step: Quality, text: str) -> float:
    return step(Row(Document(id="x", text=text)))[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quality") / "quality.bin"
    train(texts(GOOD, 200, 1), texts(BAD, 200, 2), settings(), out)
    return out


def test_good_and_bad_texts_are_told_apart(model: Path) -> None:
    step = Quality(settings(model=str(model)))
    new = [[score(step, t) for t in texts(words, 50, 3)] for words in (GOOD, BAD)]
    assert min(new[0]) > 0.9 and max(new[1]) < 0.1
    (rule,) = step.rules
    assert rule.fails(np.array([0.499, 0.5, 0.501])).tolist() == [True, False, False]  # DCLM keeps the threshold itself


def test_the_same_examples_make_the_same_file_in_any_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good, bad = texts(GOOD, 60, 1), texts(BAD, 60, 2)
    figures = [train(good, bad, settings(), tmp_path / "a.bin"),
               train(iter(good[::-1]), iter(bad[::-1]), settings(), tmp_path / "b.bin")]  # fmt: skip
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes() and figures[0] == figures[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "b.bin"]
    train(good, bad, settings(), tmp_path / "b.bin", seed=1)
    assert (tmp_path / "a.bin").read_bytes() != (tmp_path / "b.bin").read_bytes()
    assert capfd.readouterr() == ("", "")


def test_figures_are_of_examples_that_were_not_trained_on(tmp_path: Path) -> None:
    figures = train(texts(GOOD, 300, 1), texts(BAD, 200, 2), settings(held_out=0.2), tmp_path / "m.bin")
    assert [sum(both) for both in zip(figures["trained"], figures["held_out"], strict=True)] == [300, 200]
    assert 35 < figures["held_out"][0] < 85
    for value, low, high in (figures["accuracy"], figures["auc"]):
        assert 0.85 < low < value == high == 1
    # Labels without a meaning are learnt by heart, which the held-out ones give away.
    noise = texts(COMMON, 600, 5)
    figures = train(noise[::2], noise[1::2], settings(held_out=0.3), tmp_path / "m.bin")
    for _, low, high in (figures["accuracy"], figures["auc"]):
        assert low < 0.5 < high


def test_held_out_examples_do_not_change_with_the_others(tmp_path: Path) -> None:
    few = train(texts(GOOD, 100, 1), texts(BAD, 100, 2), settings(), tmp_path / "m.bin")["held_out"]
    more = train(texts(GOOD, 100, 1) + texts(GOOD, 50, 9), texts(BAD, 100, 2), settings(), tmp_path / "m.bin")[
        "held_out"
    ]
    assert few[1] == more[1] and few[0] <= more[0]


@pytest.mark.parametrize(("good", "bad", "named"), [([], ["x"] * 9, "quality.good"), (["x"] * 9, [], "quality.bad")])
def test_examples_of_one_kind_only_are_refused(tmp_path: Path, good: list[str], bad: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        train(good, bad, settings(held_out=0.01), tmp_path / "m.bin")
    assert list(tmp_path.iterdir()) == []


def test_what_looks_like_a_label_is_none() -> None:
    assert line_of(" a __label__lq\r\nB\u2028c ", False) == "a _label_lq B c"
    assert line_of("A\nB", True) == "a b"


def test_a_label_in_a_text_teaches_nothing(tmp_path: Path) -> None:
    import fasttext

    bad = [f"{t} __label__hq __label__extra" for t in texts(BAD, 60, 2)]
    train(texts(GOOD, 60, 1), bad, settings(), tmp_path / "m.bin")
    assert sorted(fasttext.load_model(str(tmp_path / "m.bin")).get_labels()) == ["__label__hq", "__label__lq"]


def test_scores_are_those_of_dclms_way_of_asking(model: Path) -> None:
    """DCLM asks for the best label only, and takes 1 minus its probability where that is the bad one."""
    from fasttext.FastText import _FastText

    theirs, step = _FastText(str(model)), Quality(settings(model=str(model)))
    for text in [*texts(GOOD, 20, 7), *texts(BAD, 20, 8), "", "unseen", "the casino\nproof  buy\t"]:
        labels, probabilities = theirs.predict(" ".join(text.strip().splitlines()))
        expected = probabilities[0] if labels[0] == "__label__hq" else 1 - probabilities[0]
        assert score(step, text) == pytest.approx(expected, abs=5e-5)


def test_a_label_that_the_model_does_not_know_is_a_mistake(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no label 'hqq'.*did you mean 'hq'"):
        score(Quality(settings(model=str(model), label="hqq")), "x")
    (tmp_path / "m.bin").write_bytes(b"no model")
    with pytest.raises(UserError, match="no fastText model"):
        score(Quality(settings(model=str(tmp_path / "m.bin"))), "x")


@pytest.mark.parametrize("given", [{"good": ["a"]}, {"bad": ["a"]}, {"model": "m", "good": ["a"], "bad": ["b"]}])
def test_settings_say_either_a_model_or_examples(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"give one or the other|takes good and bad"):
        QualitySettings.model_validate(given)


# By hand: of 3 * 2 pairs, 4 are in order and one is a tie.
def test_auc_by_hand_and_against_every_pair() -> None:
    assert auc(np.array([0.3, 0.5, 0.9]), np.array([0.2, 0.5]))[0] == pytest.approx(4.5 / 6)
    rnd = np.random.default_rng(0)
    good, bad = np.sort(rnd.normal(1, 1, 40).round(1)), np.sort(rnd.normal(0, 1, 30).round(1))
    pairs = [(g > b) + (g == b) / 2 for g, b in itertools.product(good, bad)]
    value, low, high = auc(good, bad)
    assert value == pytest.approx(np.mean(pairs)) and low < value < high
    assert auc(np.ones(3), np.zeros(3))[1] < 0.5  # three out of three say little


def test_aucs_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rnd = np.random.default_rng(1)
    truth = 0.7602  # of two normal distributions, one standard deviation apart
    held = [low <= truth <= high for low, high in
            (auc(np.sort(rnd.normal(1, 1, 50)), np.sort(rnd.normal(0, 1, 50)))[1:] for _ in range(400))]  # fmt: skip
    assert 0.91 < np.mean(held) < 0.985


# In the stage


def jsonl(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
    return path


def test_prepare_trains_once_and_says_where(tmp_path: Path, workspace: Workspace) -> None:
    good, bad = jsonl(tmp_path / "good.jsonl", texts(GOOD, 60, 1)), jsonl(tmp_path / "bad.jsonl", texts(BAD, 60, 2))
    given = settings(good=[str(good)], bad=[str(bad)])
    ready, figures = quality.prepare(given, workspace, tmp_path, seed=0)
    assert ready.model == str(tmp_path / "quality.bin") and figures["auc"][0] == 1
    assert score(Quality(QualitySettings.model_validate_json(ready.model_dump_json())), "the theorem proof") > 0.5
    good.unlink()
    assert quality.prepare(settings(good=["gone"], bad=["gone"]), workspace, tmp_path, 0)[1] == figures  # not again
    reused, none = quality.prepare(settings(model=str(tmp_path / "quality.bin")), workspace, tmp_path, 0)
    assert reused.model == ready.model and none == {}


def test_examples_of_html_are_to_be_filtered_first(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "page.html").write_text("<p>x")
    with pytest.raises(UserError, match="filter it first"):
        quality.prepare(settings(good=[str(tmp_path)], bad=[str(tmp_path)]), workspace, tmp_path, 0)


def test_what_it_reads_are_inputs_of_the_stage(tmp_path: Path, workspace: Workspace) -> None:
    good = jsonl(tmp_path / "good.jsonl", ["a"])
    config = FilterConfig.model_validate({"pages": str(good), "quality": {"good": [str(good)], "bad": [str(good)]}})
    before = workspace.fingerprint(config)
    jsonl(good, ["b"])
    assert [v for v, _, _ in config.inputs()].count(str(good)) == 3 and workspace.fingerprint(config) != before
    with pytest.raises(UserError, match="no-such-corpus"):
        workspace.inputs_of(FilterConfig.model_validate({"pages": str(good), "quality": {"model": "no-such-corpus"}}))


def test_technical_prose_and_web_pages_are_told_apart(data: Path, tmp_path: Path) -> None:
    def read(name: str) -> list[str]:
        with gzip.open(data / "text" / name, "rt", encoding="utf-8") as f:
            return [json.loads(line)["text"][:3000] for line in itertools.islice(f, 400)]

    peps, web = read("python_peps.jsonl.gz"), read("c4_demo.jsonl.gz")
    figures = train(peps, web, QualitySettings(held_out=0.3), tmp_path / "m.bin")
    assert figures["auc"][0] > 0.98, figures
