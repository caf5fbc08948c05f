"""The punctuation that datatrove's rules mean, code point for code point.

Its PUNCTUATION is a literal of 129 characters, control characters among them; TERMINAL_PUNCTUATION is 159 sentence ends
of many scripts, of which only . ! ? are ASCII: a line that ends in a closing quotation mark does not end a sentence.
"""

from __future__ import annotations


def _points(hexadecimal: str) -> str:
    """Characters from code points in hexadecimal; `a-b` is a range."""
    found = []
    for part in hexadecimal.split():
        first, _, last = part.partition("-")
        found += [chr(n) for n in range(int(first, 16), int(last or first, 16) + 1)]
    return "".join(found)


PUNCTUATION = _points("""
    21 2f 2014 201d 3a ff05 ff11 3008 26 28 3001 2501 5c 3010 23 25 300c 300d ff0c 3011 ff1b 2b 5e 5d 7e 201c 300a
    201e 27 3b 2019 7b 7c 2236 b4 5b 3d 2d 60 2a ff0e ff08 2013 ff1f ff01 ff1a 24 ff5e ab 3009 2c 3e 3c 300b 29 3f
    ff09 3002 2026 40 5f 2e 22 7d 25ba bb 0-8 b-c d-1f 7f-9f
""")

TERMINAL_PUNCTUATION = _points("""
    21 2e 3f 589 61d 61e 61f 6d4 700 701 702 7f9 837 839 83d 83e 964 965 104a 104b 1362 1367 1368 166e 1735 1736
    17d4 17d5 17d6 17d9 17da 1803 1809 1944 1945 1aa8 1aa9 1aaa 1aab 1b5a 1b5b 1b5e 1b5f 1b7d 1b7e 1c3b 1c3c 1c7e
    1c7f 203c 203d 2047 2048 2049 2e2e 2e3c 2e53 2e54 3002 a4ff a60e a60f a6f3 a6f7 a876 a877 a8ce a8cf a92f a9c8
    a9c9 aa5d aa5e aa5f aaf0 aaf1 abeb fe52 fe56 fe57 ff01 ff0e ff1f ff61 10a56 10a57 10f55 10f56 10f57 10f58 10f59
    10f86 10f87 10f88 10f89 11047 11048 110be 110bf 110c0 110c1 11141 11142 11143 111c5 111c6 111cd 111de 111df
    11238 11239 1123b 1123c 112a9 1144b 1144c 115c2 115c3 115c9 115ca 115cb 115cc 115cd 115ce 115cf 115d0 115d1
    115d2 115d3 115d4 115d5 115d6 115d7 11641 11642 1173c 1173d 1173e 11944 11946 11a42 11a43 11a9b 11a9c 11c41
    11c42 11ef7 11ef8 11f43 11f44 16a6e 16a6f 16af5 16b37 16b38 16b44 16e98 1bc9f 1da88
""")

PUNCTUATION_SET = frozenset(PUNCTUATION) | frozenset(TERMINAL_PUNCTUATION)

# Where spaCy's sentencizer ends a sentence: the 128 of these that its version 3.8 lists.
SENTENCE_ENDS = frozenset(
    _points("""
    21 2e 3f 589 61f 6d4 700 701 702 7f9 964 965 104a 104b 1362 1367 1368 166e 1735 1736 1803 1809 1944 1945 1aa8
    1aa9 1aaa 1aab 1b5a 1b5b 1b5e 1b5f 1c3b 1c3c 1c7e 1c7f 203c 203d 2047 2048 2049 2e2e 2e3c 3002 a4ff a60e a60f
    a6f3 a6f7 a876 a877 a8ce a8cf a92f a9c8 a9c9 aa5d aa5e aa5f aaf0 aaf1 abeb fe52 fe56 fe57 ff01 ff0e ff1f ff61
    10a56 10a57 11047 11048 110be 110bf 110c0 110c1 11141 11142 11143 111c5 111c6 111cd 111de 111df 11238 11239
    1123b 1123c 112a9 1144b 1144c 115c2 115c3 115c9 115ca 115cb 115cc 115cd 115ce 115cf 115d0 115d1 115d2 115d3
    115d4 115d5 115d6 115d7 11641 11642 1173c 1173d 1173e 11a42 11a43 11a9b 11a9c 11c41 11c42 16a6e 16a6f 16af5
    16b37 16b38 16b44 1bc9f 1da88
""")
)
