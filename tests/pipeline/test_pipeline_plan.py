"""A whole recipe is checked before anything runs: every mistake at once, with its line and the nearest name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.pipeline.plan import check, load, locate, shipped_recipes
from llmctl.pipeline.registry import STAGES
from llmctl.workspace import Workspace

WRONG = """\
name: wrong
stepz: 3
steps:
  - stage: crawl
    out: pages
    source: [demo]
    max_pagez: 3
  - stage: filter
    out: corpus
    pages: page
    gopher_quality: {alpah: 0.7}
  - stage: tokenize
    out: corpus
    corpus: corpus
    vocab_size: many
  - stage: pretrain
    out: base
    tokens: corpsu
  - stage: pretrain
    out: base
    tokens: corpus
"""


def lines_of(text: str, tmp_path: Path) -> list[str]:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError) as e:
        check(load(tmp_path / "r.yaml"), Workspace(tmp_path / "w"))
    return [line for line in e.value.message().replace(f"{tmp_path}/", "").splitlines() if line.startswith("r.yaml")]


def test_every_mistake_of_every_step_at_once(tmp_path: Path) -> None:
    found = lines_of(WRONG.replace("stepz: 3\n", ""), tmp_path)
    assert [line.partition(": ")[0] for line in found] == [f"r.yaml:{n}" for n in (6, 9, 10, 14, 17, 19)]
    assert "unknown key 'max_pagez' (did you mean 'max_pages'?)" in found[0]
    assert "nothing makes pages or corpus 'page' (did you mean 'pages'?)" in found[1] + found[2]
    assert "unknown key 'gopher_quality.alpah' (did you mean 'alpha'?)" in found[1] + found[2]
    assert "'vocab_size' is 'many'" in found[3]
    assert "nothing makes tokens 'corpsu' (did you mean 'corpus'?)" in found[4]
    assert "two steps make the model 'base'" in found[5]
    assert not (tmp_path / "w").exists(), "checking makes nothing"


def test_mistakes_of_the_outline(tmp_path: Path) -> None:
    assert lines_of(WRONG, tmp_path) == ["r.yaml:2: unknown key 'stepz' (did you mean 'steps'?)"]
    assert "a recipe needs a list of steps" in lines_of("name: x\n", tmp_path)[0]
    assert "did you mean 'filter'" in lines_of("steps:\n  - stage: filtr\n", tmp_path)[0]
    assert "a step needs a stage" in lines_of("steps:\n  - out: x\n", tmp_path)[0]


def test_an_artifact_of_the_workspace_is_an_input_too(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("steps:\n  - stage: filter\n    pages: there\n")
    workspace = Workspace(tmp_path / "w")
    with pytest.raises(UserError, match="no pages or corpus named 'there'"):
        check(load(tmp_path / "r.yaml"), workspace)
    (workspace.root / "pages/there").mkdir(parents=True)
    (workspace.root / "pages/there/manifest.json").write_text("{}")
    check(load(tmp_path / "r.yaml"), workspace)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_say_what_they_do_what_they_cost_and_how_to_run_them(name: str) -> None:
    head = locate(name).read_text().partition("\nname:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for part in ("What it does:", "What it costs:", f"llmctl run {name}"):
        assert part in head


def test_set_names_a_stage_or_an_out(tmp_path: Path) -> None:
    steps = {
        str(s.data["out"]): s.data for s in load(locate("quickstart"), ["synth.heldout=7", "judge.epochs=3"]).steps
    }
    assert steps["lessons"]["heldout"] == steps["preferences"]["heldout"] == 7 and steps["judge"]["epochs"] == 3
    with pytest.raises(UserError, match="did you mean 'pretrain'"):
        load(locate("quickstart"), ["pretrian.depth=3"])


def test_checking_a_recipe_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from llmctl.pipeline.plan import check, load, locate\n"
        "from llmctl.workspace import Workspace\n"
        "check(load(locate('quickstart')), Workspace('/nonexistent/w'))\n"
        "print(sorted({'torch', 'datasets', 'trafilatura', 'fasttext', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_training_needs_nothing_of_the_data_stages() -> None:
    """A GPU machine may have torch and none of what crawls and filters."""
    absent = ("trafilatura", "fasttext", "datasets", "warcio", "protego", "py3langid", "httpcore", "lxml", "pyarrow")
    code = (
        "import sys\n"
        f"sys.modules |= dict.fromkeys({absent!r})\n"
        "from importlib import import_module\n"
        "for stage in ('pretrain', 'synth', 'sft', 'rm', 'rl', 'chat', 'eval'):\n"
        "    import_module(f'llmctl.{stage}.stage')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_every_stage_keeps_the_contract() -> None:
    for stage in STAGES.values():
        config = stage.config
        assert config.stage == stage.name and config.makes
        assert str(config.model_fields["out"].default)
        assert callable(stage.run) and callable(stage.plan)


def test_every_setting_is_documented() -> None:
    from llmctl.recipe.tables import rows_of

    bare = [f"{s.name}.{key}" for s in STAGES.values() for key, _, _, text in rows_of(s.config) if len(text) < 8]
    assert bare == []
