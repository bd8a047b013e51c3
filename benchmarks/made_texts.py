"""Makes the texts that configs of language tasks are tried on, from a small grammar and a seed.

    python benchmarks/made_texts.py entities FILE.conll [--count=2000] [--seed=0]
    python benchmarks/made_texts.py stories FILE.txt [--count=2000] [--seed=0]

Names are made of syllables, the same ones for people, places and firms: what a name is, only its
sentence tells (of one template in four nothing does), and most names of a test sentence are in no
training sentence.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

from jdlopt import writing

SYLLABLES = (
    "ba", "bel", "dor", "el", "fen", "gal", "hus", "ira", "jun", "kol", "la", "mir", "nor", "osk",
    "pel", "ru", "sta", "tol", "ul", "vel", "wen", "zar",
)  # fmt: skip
TEMPLATES = (
    "{PER} lives in {LOC} .",
    "{PER} and {PER} met at {ORG} yesterday .",
    "{ORG} opened an office in {LOC} last {DAY} .",
    "On {DAY} , {PER} left {ORG} after {NUMBER} years .",
    "The train from {LOC} to {LOC} takes {NUMBER} hours .",
    "{PER} sold {NUMBER} shares of {ORG} to {PER} .",
    '" It rains in {LOC} , " said {PER} of {ORG} .',
    "Nobody came on {DAY} .",
    "{ORG} hired {PER} , who was born in {LOC} .",
    "The weather was good for {NUMBER} days .",
    "Who has heard of {PER} ?",
    "Who has heard of {LOC} ?",
    "Who has heard of {ORG} ?",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
KINDS = ("LOC", "ORG", "PER")
SECOND = {"PER": 0.5, "LOC": 0.2, "ORG": 0.4}
"""How often a name of a kind has a second word."""
PLACE = re.compile(r"\{(\w+)\}")

Sentence = list[tuple[str, str]]


def name(drawn: random.Random) -> str:
    """Returns a word of two or three syllables that begins with a capital."""
    return "".join(drawn.choices(SYLLABLES, k=drawn.choice((2, 2, 3)))).capitalize()


def _filled(kind: str, drawn: random.Random) -> Sentence:
    if kind == "DAY":
        return [(drawn.choice(DAYS), "O")]
    if kind == "NUMBER":
        return [(str(drawn.randint(2, 60)), "O")]
    words = [name(drawn) for _ in range(1 + (drawn.random() < SECOND[kind]))]
    return [(word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words)]


def entities(seed: int, count: int) -> list[Sentence]:
    """Returns sentences of words with BIO tags."""
    drawn = random.Random(seed)
    made: list[Sentence] = []
    for _ in range(count):
        sentence: Sentence = []
        for word in drawn.choice(TEMPLATES).split():
            place = PLACE.fullmatch(word)
            sentence += [(word, "O")] if place is None else _filled(place[1], drawn)
        made.append(sentence)
    return made


def stories(seed: int, count: int) -> list[str]:
    """Returns short stories in which people who have come somewhere are named again."""
    drawn = random.Random(seed)
    made = []
    for _ in range(count):
        one, other, place = name(drawn), name(drawn), name(drawn)
        day, things = drawn.choice(DAYS), drawn.randint(2, 9)
        thing = drawn.choice(("apple", "letter", "lamp", "stone"))
        sentences = [
            f"On {day} {one} went to {place} with {things} {thing}s.",
            drawn.choice(
                (
                    f"There {one} met {other}, who had lived in {place} for years.",
                    f"In {place} {other} was waiting for {one}.",
                )
            ),
            f"{one} gave {other} one {thing} and kept {things - 1}.",
            drawn.choice(
                (f"{other} thanked {one}.", f"{other} said that {place} was fine on a {day}.")
            ),
        ]
        made.append(" ".join(sentences))
    return made


def main() -> None:
    """Writes a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("entities", "stories"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.kind == "entities":
        blocks = [
            "\n".join(f"{word}\t{tag}" for word, tag in sentence)
            for sentence in entities(asked.seed, asked.count)
        ]
        whole = "\n\n".join(blocks)
    else:
        whole = "\n".join(stories(asked.seed, asked.count))
    with writing.aside(asked.file) as file:
        file.write(whole + "\n")


if __name__ == "__main__":
    main()
