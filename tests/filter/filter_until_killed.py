"""The stage in a process that a test kills: `python filter_until_killed.py SOURCE WORKSPACE WORKERS`."""

from __future__ import annotations

import sys

from llmctl.console import Console
from llmctl.filter.config import FilterConfig
from llmctl.filter.stage import run
from llmctl.workspace import Workspace

if __name__ == "__main__":
    # The language model takes longer to load than the rest takes to run.
    config = FilterConfig.model_validate(
        {"pages": sys.argv[1], "workers": int(sys.argv[3]), "language": {"enabled": False}}
    )
    run(config, Workspace(sys.argv[2]), Console(quiet=True))
