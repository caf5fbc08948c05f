"""What people talk about with an assistant, and what they want of it: the seeds of conversations."""

from __future__ import annotations

TOPICS = [
    line.strip()
    for line in """
    cooking a simple dinner; baking bread; growing vegetables; keeping a cat; training a dog; fixing a bicycle
    learning to swim; running a first race; sleeping better; a sore back; eating less sugar; a visit to the dentist
    planning a trip by train; packing a suitcase; camping in the rain; a weekend in a big city; the sea and its tides
    the weather; stars and planets; volcanoes; how birds fly; insects in the garden; dinosaurs; the human heart
    electricity at home; how a computer works; a first program in Python; spreadsheets; passwords and safety online
    fractions; percentages in a shop; measuring a room; chance and dice; reading a graph; the history of numbers
    ancient Rome; the age of steam; the first books; explorers of the poles; how a law is made; voting
    writing a letter of thanks; a speech for a wedding; a short story; a poem about autumn; choosing a book to read
    learning a new language; playing the piano; painting with watercolours; chess; a film for the evening
    looking for a job; a talk with the boss; saving money; renting a flat; a quarrel with a friend; a birthday present
    """.replace("\n", ";").split(";")
    if line.strip()
]

WISHES = (
    "ask for an explanation",
    "ask for advice on a small problem of yours",
    "ask for step-by-step instructions",
    "ask for a short text of about five sentences",
    "ask for a list of ideas",
    "ask what the difference between two things is",
    "ask for an example",
    "ask whether something that you have heard is true",
    "ask for a summary of what matters most",
    "ask a question to which the answer is a fact",
)
