"""Real archives become a corpus in FineWeb's row, and are decided again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small import FINEWEB, flags

pytestmark = pytest.mark.slow
LLMCTL = [sys.executable, "-m", "llmctl"]


def test_archives_become_a_corpus_with_its_funnel(data: Path, tmp_path: Path) -> None:
    warc = data / "web/warc"
    source = json.dumps([str(warc / "pywb__iana.warc.gz"), str(warc / "whirlwind-python__whirlwind.warc.gz")])
    where = ["-w", str(tmp_path / "w")]
    ran = [*LLMCTL, "run", "fineweb", *where, *flags([f"crawl.source={source}", *FINEWEB])]
    done = subprocess.run(ran, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    corpus = tmp_path / "w/corpus/fineweb"
    found = pq.read_table(corpus / "data")
    assert found.column_names == [
        "text", "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count",
    ]  # fmt: skip
    counts = json.loads((corpus / "counts.json").read_text())
    assert list(counts["steps"]) == [
        "url", "extract", "language", "gopher_repetition", "gopher_quality", "c4", "fineweb_quality", "exact",
        "minhash", "pii",
    ]  # fmt: skip
    assert counts["documents"] > 10 and 0 < len(found) == counts["steps"]["pii"]["documents"]
    shown = subprocess.run(
        [*LLMCTL, "show", "corpus/fineweb", *where], capture_output=True, text=True, check=True
    ).stdout
    assert "funnel" in shown and "gopher_quality" in shown
    swept = subprocess.run(
        [*LLMCTL, "filter", "fineweb", *where, "--json", "--sweep", "gopher_quality.min_words=1,50,100000"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept = [one["kept"] for one in json.loads(swept.stdout)]
    assert kept[0] >= kept[1] > kept[2] == 0
    again = [*LLMCTL, "filter", "fineweb", *where, "-o", "more", "-s", "gopher_quality.min_words=1"]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0 and len(pq.read_table(tmp_path / "w/corpus/more/data")) >= len(found)
