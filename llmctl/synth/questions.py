"""Questions about passages: written by a model, or by rules that work offline on any English text.

The rules are honest but dull. They know two sorts: what something is, where a sentence says "X is a Y"; and the missing
words of a sentence, where it has a year or a name in it. They cannot tell an important fact from an unimportant one,
nor whether a sentence stands for itself; a model can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from llmctl.synth.asking import seed_of
from llmctl.synth.made import aloud, unusable

PROMPT = """\
Here is a passage.

{passage}

Write one short question about one fact in it. The question has to be understandable for somebody who does not see the \
passage. Then write its answer: a few words, as they stand in the passage. Write exactly two lines:
Question: ...
Answer: ..."""

_LINES = re.compile(
    r"^[^\w\n]{0,20}question[^\w\n]{1,20}([^\n]{5,400})$.{0,200}?^[^\w\n]{0,20}answer[^\w\n]{1,20}([^\n]{1,200})$",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_POINTS = re.compile(r"\b(?:passage|the text|this text|the author|according to|mentioned|above|excerpt)\b", re.I)
_WORDS = re.compile(r"\w+")

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_BEGINNINGS = ("it", "he", "she", "they", "this", "these", "that", "those", "there", "we", "i", "you", "one", "his",
               "her", "its", "their", "here", "such", "what", "if", "when", "but", "and", "so", "then", "both", "each",
               "another", "some", "many", "most", "all")  # fmt: skip
_IS = re.compile(r"((?:The |An? )?[A-Z]?[\w'-]+(?: [\w'-]+){0,4}) (is|are|was|were) ((?:an?|the|one of) [^;:()]+)\.")
_KIND = re.compile(r"(?:an?|the|one of) ((?:[\w'-]+ ?){1,6})")
_CUT = re.compile(r"\b(?:that|which|who|whose|where|when|with|from|in|on|at|by|for|to|and|or|used|made|of which)\b")
_YEAR = re.compile(r"\b(?:1[0-9]{3}|20[0-2][0-9])\b")
_NAME = re.compile(
    r"(?<=[a-z,] )(?!(?:Mrs?|Dr|St|The|When|Where|What|Who|I)\b)[A-Z][a-z]{2,}(?: [A-Z][a-z]+){0,3}\b(?![-'])"
)
_ASK_GAP = (
    'Which words are missing: "{}"',
    'Fill the gap: "{}"',
    'Complete the sentence: "{}"',
    'What stands in the gap? "{}"',
)
_ASK_IS = ("{2} {1} {0}?", "Say {3} {0} {1}.", "Can you tell me {3} {0} {1}?")


@dataclass(frozen=True)
class Question:
    """A question, the words that a right answer holds, and the sentence that is taught where the model knows it."""

    question: str
    answer: str
    sentence: str
    passage: str


def by_rule(passage: str) -> Question | None:
    """A question about one sentence of the passage, always the same one; None where the rules fit none of them."""
    rng = Random(seed_of("question", passage))
    found = [q for sentence in _sentences(passage) for q in _of(sentence, passage, rng)]
    return rng.choice(found) if found else None


def parsed(text: str, passage: str) -> Question | str:
    """What a model wrote about the passage as a question, or why it is not usable."""
    match = _LINES.search(aloud(text)[:4000])
    if not match:
        return "no question and answer" if text.strip() else "empty"
    question, answer = match[1].strip(), match[2].strip().strip("\"'")
    if why := unusable(question, 400) or unusable(answer, 200):
        return why
    if not question.endswith("?") or _POINTS.search(question):
        return "the question needs the passage"
    if not _WORDS.search(answer) or _plain(answer) not in _plain(passage):
        return "the answer is not in the passage"
    if _plain(answer) in _plain(question):
        return "the question holds its answer"
    said = answer[0].upper() + answer[1:]
    return Question(question, answer.rstrip("."), said if said[-1] in ".!?" else f"{said}.", passage)


def _sentences(passage: str) -> Iterator[str]:
    """Those that seem to stand for themselves: whole, plain prose, not about what was said before."""
    for sentence in _SENTENCE.split(passage):
        first = sentence.split(" ", 1)[0].lower().rstrip(",")
        prose = sum(c.isalpha() or c == " " for c in sentence) >= 0.85 * len(sentence)
        whole = 25 <= len(sentence) <= 240 and sentence[0].isupper() and sentence[-1] == "."
        if whole and prose and first not in _BEGINNINGS and not unusable(sentence):
            yield sentence


def _of(sentence: str, passage: str, rng: Random) -> Iterator[Question]:
    if (match := _IS.fullmatch(sentence)) and (kind := _KIND.match(match[3])):
        words = _CUT.split(kind[1])[0].strip()
        subject = match[1] if match[1].split(" ")[0] not in ("The", "A", "An") else match[1][0].lower() + match[1][1:]
        if words and _plain(words) not in _plain(subject):
            # "Mozart was a composer", but "The lighthouse was a ..." and "The Battle of Hastings was a ...".
            who = "who" if match[2] == "was" and subject == subject.title() else "what"
            question = rng.choice(_ASK_IS).format(subject, match[2], who.capitalize(), who)
            yield Question(question, words, sentence, passage)
            return
    years, names = _YEAR.findall(sentence), _NAME.findall(sentence)
    for answer in years[:1] if len(years) == 1 else names[-1:]:
        if sentence.count(answer) == 1:
            gap = sentence.replace(answer, "____")
            yield Question(rng.choice(_ASK_GAP).format(gap), answer, f"{answer}.", passage)


def _plain(text: str) -> str:
    return " ".join(["", *_WORDS.findall(text.casefold()), ""])
