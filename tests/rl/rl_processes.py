"""What each of torchrun's processes does for tests/rl/test_rl_torchrun.py: several runs, one after another."""

from __future__ import annotations

import json
import sys

from llmctl.console import Console
from llmctl.rl.config import RlConfig
from llmctl.rl.stage import run
from llmctl.train import distributed
from llmctl.workspace import Workspace

if __name__ == "__main__":
    distributed.join()
    for given in json.loads(sys.argv[2]):
        run(RlConfig.model_validate(given), Workspace(sys.argv[1]), Console(quiet=True))
    distributed.leave()
