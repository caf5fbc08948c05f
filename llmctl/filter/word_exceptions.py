"""Strings that spaCy's English tokenizer knows by heart: contractions, times, abbreviations, emoticons.

The facts are those of spaCy 3.8 (`spacy/lang/en/tokenizer_exceptions.py` and `spacy/lang/tokenizer_exceptions.py`; MIT
licence, Explosion), in its order and with its gaps: "Ill" is a word and "Im" is two.
"""

from __future__ import annotations

from collections.abc import Iterator

# Who takes which endings; `+` joins two words of one ending. Each also stands without its apostrophe ("dont").
_CONTRACTIONS = (
    ("i you he she it we they who what when where why how there that this these those", "'ll 'll+'ve 'd 'd+'ve"),
    ("i", "'m 'm+a 've"),
    ("you we they", "'ve 're"),
    ("he she it who what when where why how there that this", "'s"),
    ("who what when where why how there these those", "'re 've"),
    ("ca could do does did had may might must need ought sha should wo would", "n't n't+'ve"),
    ("could might must should would", "'ve"),
    ("ai are is was were have has dare", "n't"),
    ("not", "'ve"),
)
# Those that would be other words.
_WORDS = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore"

_SPLIT = "y'+all y+all how+'d+'y How+'d+'y can+not Can+not gon+na Gon+na got+ta Got+ta let+'s Let+'s c'm+on C'm+on"
# With and without the apostrophe.
_DROPPED = "doin' goin' nothin' nuthin' ol' somethin' lovin' havin'"
_WHOLE = r"""
    'em em 'll ll 'nuff nuff 'd 'S 's ‘S ‘s 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout and/or w/o
    ma'am Ma'am o'clock O'clock ' '' — \t \n \") <space> C++
    Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan.
    Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa.
    S.C. Sep. Sept. Tenn. Va. Wash. Wis.
    a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont.
    Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s.
    :) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-((
    :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o
    :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_-
    -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.)
    (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>
"""


def exceptions() -> dict[str, tuple[str, ...]]:
    """String to its words; the words of a string, joined, are the string."""
    found = {"".join(parts): parts for parts in _all()}
    for word in _WORDS.split():
        found.pop(word, None)
    typographic = [tuple(part.replace("'", "’") for part in parts) for parts in found.values()]
    return found | {"".join(parts): parts for parts in typographic}


def _all() -> Iterator[tuple[str, ...]]:
    for stems, endings in _CONTRACTIONS:
        for stem in stems.split():
            for ending in (*endings.split(), *endings.replace("'", "").split()):
                yield stem, *ending.split("+")
                yield stem.title(), *ending.split("+")
    for hour in range(1, 13):
        yield from ((str(hour), half) for half in ("a.m.", "am", "p.m.", "pm"))
    for parts in _SPLIT.split():
        yield tuple(parts.split("+"))
    for word in _DROPPED.split():
        yield from ((form,) for form in (word, word[:-1], word.title(), word[:-1].title()))
    for word in (*_WHOLE.split(), *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyzäöü")):
        yield (word,)
    for scale in "cfkCFK":
        yield "°", scale, "."
