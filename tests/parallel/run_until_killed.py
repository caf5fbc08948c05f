"""Runs shards in a process that a test kills: `python run_until_killed.py FOLDER COUNT WORKERS`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import shard_functions

from llmctl.parallel import run_shards

if __name__ == "__main__":
    folder, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    try:
        for n in run_shards(
            shard_functions.write_number,
            [(folder, n) for n in range(count)],
            workers,
            done=lambda task: (Path(task[0]) / f"{task[1]:05d}").exists(),
        ):
            print(n, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
