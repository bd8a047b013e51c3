"""What is chosen has known keys, whatever the data; and so has what may be taken instead."""

from __future__ import annotations

import itertools

import pytest

from jdlopt import config as configs
from jdlopt.starter.choose import CHOICES, choose
from jdlopt.starter.facts import KINDS, TASKS, Choice, Facts, sections
from jdlopt.train.schema import schema_of

SHAPES = {
    "table": [(8,), (400,)],
    "image": [(8, 8, 1), (28, 28, 1), (64, 48, 3), (128, 128, 3)],
    "sound": [(400,), (8000,), (480_000,)],
    "sequence": [(40,), (500, 3)],
    "text": [(128,)],
    "mixed": [()],
}


def facts_of(kind):
    for shape, rows, task in itertools.product(SHAPES[kind], (30, 10**6), TASKS):
        rarest = 0.5 if rows == 30 else 0.01
        numbers, categories, missing = (8, (3, 40), 2) if rows > 30 else (8, (), 0)
        yield Facts(
            kind,
            rows,
            task,
            outputs=3,
            rarest=rarest,
            numbers=numbers if kind in ("table", "mixed") else 0,
            categories=categories if kind in ("table", "mixed") else (),
            missing=missing if kind in ("table", "mixed") else 0,
            long_tail=rarest < 0.1,
            shape=shape,
            sample_rate=8000 if kind == "sound" else None,
            tokens=60 if kind in ("text", "mixed") else 0,
            inputs={"table": "table", "note": "text", "photo": "image"} if kind == "mixed" else {},
        )


def checked(raw):
    raw = {**raw, "data": {"source": "a", **raw.get("data", {})}}
    problems: list[str] = []
    configs.check_section(raw, schema_of(raw, problems), "", problems)
    return problems


def test_every_kind_has_choices():
    assert set(CHOICES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_all_keys_are_known_also_those_in_comments(kind):
    seen: set[tuple[object, ...]] = set()
    for facts in facts_of(kind):
        chosen, task = choose(facts), facts.task
        raw = sections(chosen.choices)
        assert checked(raw) == [], facts
        keys = [one.key for one in chosen.choices if one.on]
        assert len(keys) == len(set(keys)), keys
        # what may be taken instead, and what a study tries
        others = [one._replace(on=True) for one in chosen.choices if not one.on]
        others += [Choice(one.key, one.values[0]) for one in chosen.space]
        for one in {(one.key, one.value): one for one in others}.values():
            if (one.key, one.value, task) not in seen:
                seen.add((one.key, one.value, task))
                assert checked(sections([*chosen.choices, one])) == [], one


def test_equal_facts_give_equal_choices():
    assert choose(Facts("table", 10, "regression")) == choose(Facts("table", 10, "regression"))


def test_off_keys_are_left_out():
    made = sections([Choice("a.b", 1), Choice("a.c", 2, on=False), Choice("a.d.e", None)])
    assert made == {"a": {"b": 1, "d": {"e": None}}}
