"""Personal data: by hand, and against datatrove's formatter."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.filter import pii
from llmctl.filter.config import PiiSettings

ALL = PiiSettings(phone=True)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("write to a.b+c@mail.example.co.uk.", "write to email@example.com."),
        ("x@y.de, y@z.de and z@a.de", "email@example.com, firstname.lastname@example.org and email@example.com"),
        ("no @ here, nor@here, nor a@b", "no @ here, nor@here, nor a@b"),
        ("me@[8.8.8.8] and you@[8.8.8.x:]", "email@example.com and firstname.lastname@example.org"),
        ("server 8.8.8.8 and 1.1.1.1", "server 22.214.171.124 and 126.96.36.199"),
        ("home 192.168.0.1, 10.0.0.1, 127.0.0.1", "home 192.168.0.1, 10.0.0.1, 127.0.0.1"),
        ("1.2.3.456", "22.214.171.1246"),  # no boundary around it, as in datatrove
        ("version 1.2.3", "version 1.2.3"),
        ("call (212) 555-1234 or +44 20 7946 0958.", "call (555) 555-0100 or (555) 555-0100."),
        ("on 2024-01-02, 01.02.2024, 12 345 678 people, +12.5", "on 2024-01-02, 01.02.2024, 12 345 678 people, +12.5"),
        ("", ""),
    ],
)
def test_personal_data(text: str, cleaned: str) -> None:
    assert pii.replace(text, ALL)[0] == cleaned


def test_what_is_replaced_is_counted_and_can_be_switched_off() -> None:
    text = "a@b.com 8.8.8.8 (212) 555-1234"
    assert pii.replace(text, PiiSettings()) == (
        "email@example.com 22.214.171.124 (212) 555-1234",
        {"email": 1, "ip": 1},
    )
    assert pii.replace(text, PiiSettings(email=False, ip=False)) == (text, {})


_EMAIL = re.compile(
    r"\b[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|\[(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}"
    r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?|[A-Za-z0-9-]*[A-Za-z0-9]:)])"
)


@given(st.text(alphabet="ab1.-_@+[] é\n", max_size=60))
@settings(max_examples=1500, deadline=None)
def test_email_addresses_are_those_of_datatroves_expression(text: str) -> None:
    assert list(pii.emails(text)) == [m.span() for m in _EMAIL.finditer(text)]


def test_email_addresses_in_real_text_are_those_of_datatroves_expression(data: Path) -> None:
    with gzip.open(data / "text" / "python_peps.jsonl.gz", "rt", encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    found = [list(pii.emails(t)) for t in texts]
    assert found == [[m.span() for m in _EMAIL.finditer(t)] for t in texts] and sum(map(len, found)) > 50


@pytest.mark.parametrize("unit", ["a-", "a.", "a@", "@", "a@b.", "1.", "1-", "(", "1 "])
def test_a_megabyte_of_anything_takes_seconds(unit: str) -> None:
    pii.replace(unit * (1_000_000 // len(unit)) + "@", ALL)


def test_telephone_numbers_of_made_up_persons(data: Path) -> None:
    with gzip.open(data / "pii" / "presidio_synth_v2.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    numbers = [s["entity_value"] for r in rows for s in r["spans"] if s["entity_type"] == "PHONE_NUMBER"]
    found = sum(pii.replace(f"call {n} now", PiiSettings(email=False, ip=False, phone=True))[1] != {} for n in numbers)
    assert len(numbers) > 50 and found / len(numbers) > 0.5  # many are local numbers, without an area code


# Against datatrove


def datatroves(text: str) -> str:
    """What its formatter makes of the first document that it sees: its stand-ins take turns across documents."""
    return str(pytest.importorskip("datatrove.pipeline.formatters.pii").PIIFormatter().format(text))


pieces = st.lists(
    st.sampled_from(
        [
            "1",
            "25",
            "256",
            "8.8.8.8",
            "10.0.0.1",
            "1.1.1.1",
            ".",
            "-",
            " ",
            "@",
            "a",
            "b.com",
            "me@",
            "[",
            "]",
            "é",
            "٣",
        ]
    )
)


@given(pieces.map("".join))
@settings(max_examples=400, deadline=None)
def test_texts_become_what_datatrove_makes_of_them(text: str) -> None:
    assert pii.replace(text, PiiSettings())[0] == datatroves(text)


def test_real_texts_become_what_datatrove_makes_of_them(data: Path) -> None:
    texts = []
    for name in ("text/c4_demo", "pii/presidio_synth_v2", "text/python_peps"):
        with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as f:
            texts += [row.get("text") or row["full_text"] for row in map(json.loads, f)][:400]
    changed = 0
    for text in texts:
        ours, counts = pii.replace(text, PiiSettings())
        assert ours == datatroves(text)
        changed += bool(counts)
    assert changed > 50
