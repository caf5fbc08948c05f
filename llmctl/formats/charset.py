"""Bytes of the web to text.

What a page says of its charset is often wrong, so the bytes have the first word: text that decodes as UTF-8 and is not
plain ASCII is UTF-8 (legacy encodings produce valid multi-byte UTF-8 by accident with vanishing probability, and
datatrove decides the same way). After that the HTTP header, then the page's own `<meta>`, then charset-normalizer.
"""

from __future__ import annotations

import codecs
import re

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# 1024 bytes is what the HTML standard's prescan reads; real pages put scripts before it.
_PRESCAN = 4096
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
# The WHATWG Encoding Standard: these labels mean the Windows code page on the web.
_WEB_NAMES = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "gb2312": "gb18030",
    "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "ks_c_5601-1987": "cp949",
}  # fmt: skip
# These are written in 7-bit bytes, so they also decode as UTF-8, to rubbish.
_SEVEN_BIT = ("iso2022", "hz", "utf-7")
# The legacy encodings of the WHATWG standard that can be told from the bytes, the most frequent first.
_LEGACY = (
    "cp1252", "cp1251", "cp932", "euc_jp", "gb18030", "cp949", "big5", "cp1250", "cp1254", "cp1253", "cp1256", "cp1255",
    "iso8859_2", "koi8_r", "cp1257", "cp874", "cp1258", "koi8_u", "cp866",
)  # fmt: skip
_GUESS_FROM = 64 * 1024


def decode(data: bytes, declared: str | None = None) -> str:
    """`data` as text; what cannot be read becomes U+FFFD. `declared` is the charset of the HTTP header, if any."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(name, "replace")
    unmarked = _unmarked_utf16(data[:_PRESCAN])
    if unmarked:
        return data.decode(unmarked, "replace")
    named = [codec for codec in (known(declared), known(meta_charset(data))) if codec]
    if named and named[0].startswith(_SEVEN_BIT):
        return data.decode(named[0], "replace")
    for codec in ["utf-8", *named]:
        try:
            return data.decode(codec)
        except (UnicodeDecodeError, ValueError):
            continue
    return data.decode(_guess(data, named), "replace")


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without its mark also decodes as UTF-8, to text with a NUL at every second place."""
    even, odd = head[::2], head[1::2]
    if even.count(0) * 10 <= len(even) and odd.count(0) * 10 > len(odd) * 9:
        return "utf-16-le"
    if odd.count(0) * 10 <= len(odd) and even.count(0) * 10 > len(even) * 9:
        return "utf-16-be"
    return None


def known(label: str | None) -> str | None:
    """The Python codec that a browser would use for a charset label, or None where there is none."""
    try:
        name = codecs.lookup((label or "").strip().strip("\"'")).name
        "".encode(name)  # leaves out codecs that are no charsets (`hex`, `zip`)
    except (LookupError, ValueError, TypeError):
        return None
    return _WEB_NAMES.get(name, name)


def meta_charset(data: bytes) -> str | None:
    """The charset that an HTML or XML page names at its beginning."""
    head = data[:_PRESCAN]
    found = _XML.search(head) or _META.search(head)
    return found.group(1).decode("ascii") if found else None


def _guess(data: bytes, named: list[str]) -> str:
    """What the bytes look like. A charset that is declared, or UTF-8, and nearly fits beats a guess."""
    for codec in [*named[:1], "utf-8"]:
        text = data.decode(codec, "replace")
        broken = text.count("\ufffd")
        if broken * 10 <= sum(not c.isascii() for c in text) - broken:
            return codec
    from charset_normalizer import from_bytes

    found = from_bytes(data[:_GUESS_FROM], cp_isolation=list(_LEGACY))
    best = found.best()
    if best is None:
        return "cp1252"
    # Western text fits cp1250 as well, and charset-normalizer takes equals in the order of the alphabet.
    equals = [m for m in found if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    return min((m.encoding for m in equals), key=_LEGACY.index)
