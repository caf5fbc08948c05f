"""How much reinforcement learning adds in the quickstart, over several seeds.

    python benchmarks/rl_quickstart.py [-w WORKSPACE] [--seeds 0 1 2] [--recipe recipes/quickstart.yaml]

Needs a workspace in which the quickstart has run up to its sft step. For each seed the recipe's rl step is run from the
same sft model with that seed (other problems, other samples), and the model before and after answers the same held-out
problems. The intervals are Wilson's, of one model on these problems.
"""

from __future__ import annotations

import argparse
import json
import time
from math import sqrt
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.recipe.source import read
from llmctl.rl.config import RlConfig
from llmctl.rl.stage import run
from llmctl.workspace import Workspace

HELD_OUT = 1000  # more than the recipe's, for narrower intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-w", "--workspace", default="workspace")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--items", type=int, default=HELD_OUT)
    args = parser.parse_args()
    workspace, console = Workspace(args.workspace), Console()
    rows = [measure(settings(args.recipe, seed, args.items), workspace, console) for seed in args.seeds]
    columns = ("seed", "before", "95 %", "after", "95 %", "gain", "steps", "minutes")
    console.table(f"rl on {rows[0]['task']}, {args.items} held-out problems", columns, [shown(r) for r in rows])
    print(json.dumps(rows, indent=2))


def settings(recipe: Path, seed: int, items: int) -> RlConfig:
    """The recipe's rl step with another seed, under a name of its own."""
    step = next((s for s in read(recipe).data["steps"] if s.get("stage") == "rl"), None)
    if step is None:
        raise UserError("the recipe has no rl step", str(recipe))
    found = {k: v for k, v in step.items() if k != "stage"}
    return RlConfig.model_validate(found | {"seed": seed, "out": f"bench-rl-{seed}", "eval_items": items})


def measure(config: RlConfig, workspace: Workspace, console: Console) -> dict[str, Any]:
    """One run, or the finished one of an earlier call."""
    begun = time.monotonic()
    made = workspace.current(config) or run(config, workspace, console)
    found = made.figures
    return {
        "seed": config.seed,
        "task": config.task,
        "items": found["heldout_items"],
        "before": found["accuracy_before"],
        "after": found["accuracy_after"],
        "steps": config.train.steps,
        "minutes": round((float(made.manifest.get("seconds") or 0) or time.monotonic() - begun) / 60, 2),
    }


def shown(row: dict[str, Any]) -> list[str]:
    n = row["items"]
    gain = 100 * (row["after"] - row["before"])
    return [
        str(row["seed"]), f"{row['before']:.1%}", interval(row["before"], n), f"{row['after']:.1%}",
        interval(row["after"], n), f"{gain:+.1f} points", str(row["steps"]), f"{row['minutes']:.1f}",
    ]  # fmt: skip


def interval(p: float, n: int, z: float = 1.96) -> str:
    """Wilson's interval (1927) of a share `p` of `n`."""
    middle, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return f"{max(0.0, middle - half) / (1 + z * z / n):.1%} to {(middle + half) / (1 + z * z / n):.1%}"


if __name__ == "__main__":
    main()
