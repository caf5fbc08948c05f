"""Streaming: whole characters only, and nothing of a stop string, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.generate.text import TextPieces, first_stop


def streamed(data: bytes, cuts: list[int], stops: tuple[str, ...]) -> tuple[list[str], TextPieces]:
    edges = [0, *sorted({c % (len(data) + 1) for c in cuts}), len(data)]
    pieces = TextPieces(stops)
    shown = [pieces.push(data[a:b]) for a, b in pairwise(edges)]
    return [*shown, pieces.push(b"", final=True)], pieces


@settings(deadline=None)
@given(st.text(), st.lists(st.integers(0, 200)))
def test_text_comes_back_whole_however_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "ignore")
    shown, _ = streamed(data, cuts, ())
    assert "".join(shown) == data.decode()
    assert "\ufffd" not in "".join(shown) or "\ufffd" in text


@settings(deadline=None)
@given(
    st.text("ab", max_size=30),
    st.lists(st.integers(0, 40)),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_string_is_never_shown(text: str, cuts: list[int], stops: list[str]) -> None:
    shown, pieces = streamed(text.encode(), cuts, tuple(stops))
    # Text ends at the first piece that completes a stop string; what would have come after it never existed.
    ends = [*sorted({c % (len(text) + 1) for c in cuts}), len(text)]
    text = next((text[:e] for e in ends if first_stop(text[:e], stops) is not None), text)
    at = first_stop(text, stops)
    assert "".join(shown) == (text if at is None else text[:at])
    assert pieces.stopped == (at is not None)


@settings(deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 50)))
def test_bytes_that_are_no_text_become_replacement_characters(data: bytes, cuts: list[int]) -> None:
    assert "".join(streamed(data, cuts, ())[0]) == data.decode("utf-8", "replace")
