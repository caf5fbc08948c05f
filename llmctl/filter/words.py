r"""Words and sentences, as every rule of the recipe counts them.

FineWeb counts the tokens of spaCy's blank English tokenizer: punctuation marks are words of their own, contractions are
split ("do" "n't"), numbers, addresses and abbreviations are not. These are regular expressions that follow the same
principles without following every exception: **they stand in for exact parity with spaCy, which will replace `_split`
and nothing else here.** Until then a document close to a threshold may be decided otherwise than by datatrove.

A text is cut at white space and each chunk is looked up before it is split: texts repeat their chunks, and a tokenizer
that never joins chunks (spaCy's does not either) gives the same words this way, many times as fast.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from llmctl.filter.characters import SENTENCE_ENDS

_ABBREVIATION = r"(?:Mrs?|Ms|Dr|Prof|St|Jr|Sr|vs|Inc|Ltd|Corp|Co|Gen|Gov|Sen|Rep)\."
_WORD = re.compile(
    rf"""
      (?:https?://|www\.)[^\s<>"]+[\w/]                     # addresses of the web,
    | [\w.+-]{{1,64}}@[\w-]+(?:\.[\w-]+)+                   # and of mail
    | (?:[^\W\d_]\.){{2,}}                                  # U.S. and e.g.
    | {_ABBREVIATION}(?!\w)
    | [^\W_]+?(?=[nN]['’][tT]\b)                           # do | n't
    | [nN]['’][tT]\b | ['’](?:s|re|ve|ll|d|m|S|RE|VE|LL|D|M)\b  # it | 's
    | \d+(?:[.,:]\d+)*                                      # 3.14 and 1,000
    | [^\W\d]\w*(?:\.[^\W\d]\w*)*                           # a word, or dotted names: os.path
    | \.{{2,}} | -{{2,}}                                    # dots and dashes in a row are one word
    | \w | [^\w\s]
    """,
    re.VERBOSE,
)

# Chunks longer than this hardly repeat, and there are too many to keep.
_CACHED_LENGTH = 64
_cached_split = lru_cache(maxsize=1 << 18)(lambda chunk: tuple(_WORD.findall(chunk)))


def _split(chunk: str) -> tuple[str, ...]:
    """The words of a chunk without white space. Longer chunks are cut so that no expression runs for ever on them."""
    if len(chunk) <= _CACHED_LENGTH:
        return _cached_split(chunk)
    return tuple(w for at in range(0, len(chunk), 4096) for w in _WORD.findall(chunk[at : at + 4096]))


# Repetition, quality and FineWeb's rules ask for the same text one after the other.
@lru_cache(maxsize=4)
def words(text: str) -> tuple[str, ...]:
    """The words of `text`, punctuation marks among them, white space not."""
    return tuple(word for chunk in text.split() for word in _split(chunk))


def sentences(text: str) -> int:
    """How many sentences `text` has, by spaCy's sentencizer: a new one begins at the first word behind a sentence end
    that is not itself only punctuation (so a closing quotation mark still belongs to the old one).
    """
    count, ended = 0, False
    for chunk in text.split():
        for word in _split(chunk):
            if count == 0:
                count = 1
            if word in SENTENCE_ENDS:
                ended = True
            elif ended and not _only_punctuation(word):
                count, ended = count + 1, False
    return count


def _only_punctuation(word: str) -> bool:
    return all(unicodedata.category(c)[0] == "P" for c in word)
