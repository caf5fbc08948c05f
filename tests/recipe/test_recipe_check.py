"""Mistakes in settings: all at once, each with its line and the nearest valid key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UserError, UserErrors
from llmctl.recipe import InputOf, NoResult, Settings, StageSettings
from llmctl.recipe.check import checked
from llmctl.recipe.overrides import apply
from llmctl.recipe.source import parse, read
from llmctl.recipe.tables import settings_table


class Group(Settings):
    lr: float = 0.1
    """How far each update goes. Too far diverges."""
    kind: Literal["muon", "adamw"] = "muon"
    """Which optimizer."""


class Config(StageSettings):
    stage: ClassVar[str] = "filter"
    makes: ClassVar[str] = "corpus"
    pages: Annotated[str, InputOf(("pages",))]
    """Which pages to read."""
    group: Group = Group()
    names: list[str] = []
    workers: Annotated[int, NoResult()] = 0


def messages(text: str) -> list[str]:
    source = parse(text, "r.yaml")
    with pytest.raises(UserError) as e:
        checked(Config, source.data, source)
    found = e.value
    return [p.message() for p in found.problems] if isinstance(found, UserErrors) else [found.message()]


def test_every_mistake_with_its_line_and_the_nearest_key() -> None:
    found = messages("pages: 3\ngroup:\n  lrr: 1\n  kind: sgd\nworkers: many\nnames: one\n")
    assert found[0].startswith("r.yaml:1: 'pages' is 3; it should be")
    assert found[1] == "r.yaml:3: unknown key 'group.lrr' (did you mean 'lr'?)"
    assert found[2].startswith("r.yaml:4: 'group.kind' is 'sgd'; it should be 'muon' or 'adamw'")
    assert found[3].startswith("r.yaml:5: 'workers' is 'many'; it should be a valid integer")
    assert found[4].startswith("r.yaml:6: 'names' is 'one'; it should be a valid list")


def test_a_missing_key_says_what_it_is_for() -> None:
    assert messages("seed: 1\n") == ["r.yaml:1: 'pages' is missing\n  add it: Which pages to read."]


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1, 2\nb: 3\n", 2), ("a: 1\na: 2\n", 2), ("a:\n\t- 1\n", 2), ("x: 'open\n", 2)]
)
def test_what_is_not_yaml_is_told_by_line(text: str, line: int) -> None:
    with pytest.raises(UserError, match=f"r.yaml:{line}:"):
        parse(text, "r.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read(tmp_path / "r.yaml")


def test_yaml_without_its_traps() -> None:
    data = parse("a: 1e-3\nb: no\nc: on\nd: true\ne: 1_000\nf: .5\ng: 3e4\nh: 12:30:45\ni: 1.2.3\n", "x").data
    assert data["a"] == 0.001 and data["b"] == "no" and data["c"] == "on" and data["d"] is True
    assert data["e"] == 1000 and data["f"] == 0.5 and data["g"] == 30000.0 and data["i"] == "1.2.3"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_yaml_and_set(value: float) -> None:
    assert float(parse(f"a: {value!r}\n", "x").data["a"]) == value
    assert float(apply({}, [f"g.lr={value!r}"])["g"]["lr"]) == value


def test_set_reaches_into_groups_and_leaves_the_rest() -> None:
    before: dict[str, Any] = {"group": {"kind": "adamw"}}
    after = apply(before, ["group.lr=1e-2", "names=[a, b]", "pages=x"])
    assert after == {"group": {"kind": "adamw", "lr": 0.01}, "names": ["a", "b"], "pages": "x"}
    assert before == {"group": {"kind": "adamw"}}
    for wrong in ("lr", "=3", "group.kind.deeper=1"):
        with pytest.raises(UserError):
            apply(before, [wrong])


def test_the_table_of_settings_comes_from_the_schema() -> None:
    table = settings_table(Config)
    assert "| `group.lr` | float | `0.1` | How far each update goes. Too far diverges. |" in table
    assert "| `pages` | str | *required* | Which pages to read. |" in table
    assert "`muon` \\| `adamw`" in table


def test_the_fingerprint_leaves_out_what_changes_no_result() -> None:
    a = Config(pages="x", workers=1, out="a").recorded(fingerprint=True)
    assert a == Config(pages="y", workers=2, out="b").recorded(fingerprint=True)
    assert a != Config(pages="x", group=Group(lr=1)).recorded(fingerprint=True)
    assert Config(pages="x").recorded()["pages"] == "x"
