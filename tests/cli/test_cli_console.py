"""What the console shows is what it was given."""

from __future__ import annotations

import pytest

from llmctl.console import Console


def test_a_cell_is_text_and_no_markup(capsys: pytest.CaptureFixture) -> None:
    Console().table("t", ("what",), [("[search: tea] [bold]x[/]",), (1234,), (None,), (0.123456,)])
    shown = capsys.readouterr().err
    assert "[search: tea] [bold]x[/]" in shown
    assert "1,234" in shown and "0.1235" in shown
