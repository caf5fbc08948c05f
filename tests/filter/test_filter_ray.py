"""The same shards on a Ray cluster of two workers, one of which is killed while it works."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import corpus_of

from llmctl.workspace import Workspace


def kill_a_worker(killed: list[int]) -> None:
    """SIGKILL to the first of Ray's processes on this machine that is seen with a task in hand."""
    for _ in range(600):
        for process in psutil.Process().children(recursive=True):
            try:
                busy = process.cmdline()[:1] == ["ray::attempt"]
            except psutil.Error:
                continue
            if busy:
                time.sleep(0.5)  # into its shard
                killed.append(process.pid)
                process.kill()
                return
        time.sleep(0.1)


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(
    data: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr("llmctl.filter.sources._SHARD", 40)
    source = data / "text" / "c4_demo.jsonl.gz"  # 300 documents in 8 shards
    local = corpus_of(source, workspace, workers=2, out="local")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(killed,), daemon=True)
    killer.start()
    try:
        there = corpus_of(source, workspace, workers=2, out="there", engine="ray")
    finally:
        ray.shutdown()
    killer.join(1)
    assert killed and not psutil.pid_exists(killed[0])
    assert there.digest == local.digest and there.figures["documents_in"] == 300
