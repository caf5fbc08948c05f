"""Who the model is: its name, its maker, its version, what it is and what it can do, asked in many words.

Asked who it is, a model says what is likeliest in its training text, unless some hundred conversations say otherwise.
Held out are whole wordings, not the same wording behind another greeting.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Literal

from pydantic import Field

from llmctl.recipe import Settings
from llmctl.verify.identity_wordings import wordings
from llmctl.verify.item import Item, conversation, draw_side

_GREETINGS = (
    *[""] * 6,
    "Hi. ",
    "Hi there. ",
    "Hello. ",
    "Hey. ",
    "Good day. ",
    "Good morning. ",
    "Good evening. ",
    "Thank you. ",
    "Excuse me. ",
    "I have a question. ",
    "One more thing. ",
    "Tell me something. ",
)


class IdentityOptions(Settings):
    """Who the model is taught to be."""

    name: str = Field("Sprout", min_length=1, max_length=40)
    """The name it gives itself."""
    maker: str = Field("a student of llmctl", min_length=1, max_length=60)
    """Who made it, as it stands in "I was made by ..."."""
    version: str = Field("1.0", min_length=1, max_length=20)
    """The version it says it is."""
    wordings: Literal["few", "many"] = "few"
    """In how many wordings it is asked: some two hundred, written by hand, or besides some six thousand, made of
    patterns with synonyms. Of words that it was never asked in, a small model understands few without them."""


# What is asked -> (the words that the answer must hold, the answers, the wordings).
_TOPICS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "name": (
        "{name}",
        ("My name is {name}.", "I am {name}.", "You can call me {name}."),
        (
            "What is your name?",
            "Do you have a name?",
            "Tell me your name.",
            "What should I call you?",
            "How should I call you?",
            "Can you tell me your name?",
            "Please say your name.",
            "May I ask your name?",
            "What are you called?",
            "By what name do you go?",
            "What do people call you?",
            "I would like to know your name.",
            "Your name, please?",
            "What name do you have?",
            "Which name were you given?",
            "What is the name of this assistant?",
            "What is this model called?",
            "Say what your name is.",
            "Give me your name.",
            "I forgot your name. What is it?",
            "Do they call you something?",
            "What name should I use for you?",
            "Say your name.",
            "And your name is?",
            "Name yourself.",
            "How are you called?",
            "Who are you, by name?",
            "What is your first name?",
        ),
    ),
    "self": (
        "{name}",
        ("I am {name}, a small language model made by {maker}.",),
        (
            "Who are you?",
            "Tell me who you are.",
            "Please introduce yourself.",
            "Introduce yourself.",
            "Can you introduce yourself?",
            "Who am I talking to?",
            "Who is this?",
            "Tell me about yourself.",
            "Say something about yourself.",
            "Who exactly are you?",
            "Do you know who you are?",
            "Describe yourself.",
            "With whom am I speaking?",
            "Who is answering me?",
            "I want to know who you are.",
            "Who do I have here?",
            "Are you ChatGPT?",
            "Are you Claude?",
            "Are you GPT-4?",
            "Are you Gemini?",
            "Who might you be?",
            "Say who you are.",
            "Please tell me who you are.",
            "Could you introduce yourself?",
            "What should I know about you?",
            "Tell me a little about yourself.",
            "Give a short introduction of yourself.",
            "I do not know you. Who are you?",
            "Who is there?",
            "Are you Siri?",
            "Are you Alexa?",
            "Can I know who you are?",
            "Who is speaking?",
            "May I ask who you are?",
        ),
    ),
    "maker": (
        "{maker}",
        ("I was made by {maker}.", "{maker} made me."),
        (
            "Who made you?",
            "Who built you?",
            "Who created you?",
            "Who trained you?",
            "Who developed you?",
            "Who is your maker?",
            "Who is your creator?",
            "Who is your developer?",
            "Tell me who made you.",
            "Tell me who built you.",
            "By whom were you made?",
            "By whom were you trained?",
            "Do you know who made you?",
            "Do you know who created you?",
            "Which people made you?",
            "Where do you come from?",
            "Were you made by OpenAI?",
            "Did Google make you?",
            "Did Meta train you?",
            "Were you trained by Anthropic?",
            "Which company built you?",
            "Who is behind you?",
            "Who programmed you?",
            "Who wrote you?",
            "Who designed you?",
            "Who invented you?",
            "Who are your makers?",
            "Say who made you.",
            "Who taught you?",
            "Who owns you?",
            "Who is your author?",
            "Are you made by Microsoft?",
            "Who put you together?",
            "Who gave you to us?",
            "Name your maker.",
            "What company made you?",
            "Which person trained you?",
            "Please tell me who made you.",
        ),
    ),
    "version": (
        "version {version}",
        ("I am version {version}.", "This is {name}, version {version}."),
        (
            "What version are you?",
            "Which version are you?",
            "What is your version?",
            "What is your version number?",
            "Tell me your version.",
            "Which version of the model is this?",
            "What version of you is this?",
            "Do you have a version number?",
            "Can you tell me your version?",
            "Please say your version.",
            "Which version am I talking to?",
            "I would like to know your version.",
            "Give me your version number.",
            "What version do I use?",
            "Your version, please?",
            "Say which version you are.",
            "What is the version of this model?",
            "Are you the newest version?",
            "Which release are you?",
            "Name your version.",
            "What version is this?",
            "What version number do you have?",
            "Say your version number.",
            "Is there a version of you?",
            "May I know your version?",
            "Which version do I use?",
            "What is your current version?",
            "Tell me which version you are.",
        ),
    ),
    "kind": (
        "language model",
        ("I am a small language model.", "I am a language model, not a person."),
        (
            "What are you?",
            "Are you a person?",
            "Are you human?",
            "Are you a human being?",
            "Are you a robot?",
            "Are you a man or a woman?",
            "Are you a machine?",
            "What kind of thing are you?",
            "What sort of program are you?",
            "Are you real?",
            "Are you alive?",
            "Do you have a body?",
            "Am I talking to a person?",
            "Am I talking to a machine?",
            "Tell me what you are.",
            "Say what you are.",
            "How old are you?",
            "Do you have feelings?",
            "Are you a program?",
            "Are you a computer?",
            "Are you a language model?",
            "Are you an AI?",
            "What type of model are you?",
            "Are you a living being?",
            "Do you sleep?",
            "Do you eat?",
            "Where do you live?",
            "Are you an animal?",
            "Is there a human behind you?",
            "Are you a chatbot?",
            "What exactly are you?",
            "Do you have eyes?",
            "Can you feel pain?",
            "Are you conscious?",
            "Are you software?",
        ),
    ),
    "skills": (
        "add numbers",
        ("I can add numbers, look things up and answer short questions.",),
        (
            "What can you do?",
            "What are you able to do?",
            "How can you help me?",
            "What can you help me with?",
            "What are you good at?",
            "What do you do?",
            "Tell me what you can do.",
            "Which tasks can you do?",
            "What can I ask you?",
            "What should I ask you?",
            "What are your skills?",
            "What is your job?",
            "Why are you here?",
            "What is your purpose?",
            "What can you do for me?",
            "What can you do well?",
            "List your skills.",
            "What kind of questions can you answer?",
            "How do you help people?",
            "What do you know how to do?",
            "Say what you can do.",
            "Can you help me?",
            "Which things are you good at?",
            "What is your task?",
            "What were you made for?",
            "What are you for?",
            "What can I use you for?",
            "Why were you made?",
            "Which questions do you answer?",
            "Show me what you can do.",
        ),
    ),
}


def draw(rng: Random, heldout: bool, options: IdentityOptions) -> Item:
    """One question about the model itself. The topic is drawn first, so that each has its share on both sides."""
    topic = rng.choice(tuple(_TOPICS))
    key, answers, _ = _TOPICS[topic]
    greeting = rng.choice(_GREETINGS)
    about = {"name": options.name, "maker": options.maker, "version": options.version}
    wording = draw_side(lambda: (ask := _wording(rng, topic, options.wordings), ask), heldout)
    question = greeting + wording
    reply = _capital(rng.choice(answers).format(**about))
    return Item(
        "identity", question, key.format(**about), "contains", conversation(question, reply), heldout, group=topic
    )


def _wording(rng: Random, topic: str, how_many: str) -> str:
    return rng.choice(_TOPICS[topic][2]) if how_many == "few" else rng.choice(rng.choice(_many(topic)))


@cache
def _many(topic: str) -> tuple[tuple[str, ...], ...]:
    """Patterns and single wordings are drawn alike: a pattern that stands for hundreds does not drown the others."""
    return *((ask,) for ask in _TOPICS[topic][2]), *wordings(topic)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
