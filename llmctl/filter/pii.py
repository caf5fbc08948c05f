"""Personal data replaced by harmless stand-ins: e-mail addresses and public IPv4 addresses as FineWeb does, telephone
numbers on request.

The regular expressions are datatrove's. Its stand-ins take turns across documents; here they begin anew in each
document, so that a text does not depend on which others were cleaned before it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from itertools import cycle

from llmctl.filter.config import PiiSettings

EMAILS = ("email@example.com", "firstname.lastname@example.org")
# Addresses that FineWeb's authors found not to answer anybody.
IPS = ("22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168")
PHONES = ("(555) 555-0100",)  # 555-0100 to 0199 are kept free for fiction

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(
    rf"@(?:(?:{_LABEL}\.)+{_LABEL}|\[(?:{_BYTE}\.){{3}}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?|[A-Za-z0-9-]*[A-Za-z0-9]:)])"
)
# The characters before an @, read backwards: atoms with single dots between them.
_LOCAL_BACKWARDS = re.compile(rf"{_ATOM}+(?:\.{_ATOM}+)*")
_BOUNDARY = re.compile(rf"\b(?={_ATOM})")
_IP = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}")
# What is in every one of them, and hardly anywhere else. Python finds its first character fast; the expression above is
# tried at every place of a text, and took nine tenths of the time of this module.
_INNER_IP = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_PHONE = re.compile(
    r"""(?<![\w.-])(?:
        \+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}                              # +44 20 7946 0958
      | (?:(?:001|1)[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[ .-])\d{3}[ .-]\d{4}     # (212) 555-1234
      | (?:\(0\d{1,4}\)|0\d{1,4})(?:[ .-]\d{2,4}){2,4}                    # 020 7946 0958
    )(?:x\d{1,5})?(?!\w|[.-]\d)""",
    re.VERBOSE,
)
# Fewer digits are mostly dates and amounts; numbers without an area code are therefore not found.
_PHONE_DIGITS = range(9, 21)


def replace(text: str, settings: PiiSettings) -> tuple[str, dict[str, int]]:
    """(the text with stand-ins, how many of each kind were replaced)."""
    counts = {}
    if settings.email and "@" in text:
        text, counts["email"] = _put_in(text, emails(text), EMAILS)
    if settings.ip and (inner := _INNER_IP.search(text)):
        text, counts["ip"] = _put_in(text, _spans(_IP, text, is_public, max(inner.start() - 3, 0)), IPS)
    if settings.phone:
        text, counts["phone"] = _put_in(text, _spans(_PHONE, text, _is_phone), PHONES)
    return text, {kind: count for kind, count in counts.items() if count}


def emails(text: str) -> Iterator[tuple[int, int]]:
    r"""Where the e-mail addresses are, as `\b<local part>@<domain>` finds them, but in linear time.

    Run from the left, that expression tries every start of a word up to the next @: hours on a megabyte of dashes. So
    this goes from @ to @, reads the domain forwards, and the local part backwards.
    """
    end, at = 0, text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at)
        if domain and (start := _local_start(text, end, at)) is not None:
            yield start, domain.end()
            end = domain.end()
        at = text.find("@", max(at + 1, end))


def _local_start(text: str, floor: int, at: int) -> int | None:
    """Where the local part before the @ begins: the first word boundary in its run of characters; None without one."""
    # The whole backward run, in pieces, since the end of it is not known; local parts are short.
    size = 64
    while True:
        low = max(floor, at - size)
        found = _LOCAL_BACKWARDS.match(text[low:at][::-1])
        if found is None:
            return None
        if found.end() < at - low or low == floor:
            break
        size *= 8
    boundary = _BOUNDARY.search(text, at - found.end(), at)
    return boundary.start() if boundary else None


def is_public(address: str) -> bool:
    """True for an address that somebody on the internet may have."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _is_phone(number: str) -> bool:
    return sum(map(str.isdigit, number)) in _PHONE_DIGITS and not _IP.fullmatch(number)


def _spans(
    pattern: re.Pattern[str], text: str, wanted: Callable[[str], bool], start: int = 0
) -> Iterator[tuple[int, int]]:
    return (m.span() for m in pattern.finditer(text, start) if wanted(m.group()))


def _put_in(text: str, spans: Iterator[tuple[int, int]], stand_ins: tuple[str, ...]) -> tuple[str, int]:
    parts, end, count = [], 0, 0
    for (start, stop), stand_in in zip(spans, cycle(stand_ins), strict=False):
        parts += [text[end:start], stand_in]
        end, count = stop, count + 1
    return ("".join([*parts, text[end:]]), count) if count else (text, 0)
