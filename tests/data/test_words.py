"""Words as tokens: those of the text that they make, and the first token of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jdlopt.data import text, words
from jdlopt.data.text_cleaning import clean
from jdlopt.data.text_input import TextInput, from_meta

TEXTS = ["Ann Smith lives in Berlin, and Berlin is large.", "naïve Zoë's café", "日本 unaffable"]
ANY_WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Cc"]), max_size=6)
STATES = {
    kind: text.fit({"tokenizer": kind, "vocab_size": 300, "max_tokens": 200}, TEXTS)
    for kind in ("wordpiece", "bpe")
}


@pytest.mark.parametrize("kind", STATES)
@given(st.lists(ANY_WORD, max_size=6))
@settings(max_examples=20, deadline=None)
def test_words_are_the_tokens_of_their_text_and_each_begins_at_its_own(kind, given_words):
    state = STATES[kind]
    found = words.encode(state, [given_words])
    np.testing.assert_array_equal(found.ids, text.encode(state, [" ".join(given_words)]))
    firsts = found.firsts[0]
    there = firsts[firsts >= 0]
    assert len(firsts) == len(given_words) and (np.diff(there) > 0).all()
    cleaned = [clean(word, lowercase=True) for word in given_words]
    assert (firsts >= 0).tolist() == [bool(word) for word in cleaned]
    if kind == "bpe" and len(
        there
    ):  # loses nothing: from one first token to the next stands the word
        ends = [*there[1:], int((found.ids[0] != 0).sum())]
        pieces = [found.ids[:, start:end] for start, end in zip(there, ends, strict=True)]
        spelt = [text.decode(state, piece)[0].strip() for piece in pieces]
        assert spelt == [word for word in cleaned if word]


@pytest.mark.parametrize(
    ("truncate", "expected"),
    [("end", [1, 3, -1]), ("start", [-1, 1, 3]), ("middle", [1, -1, 3])],
)
def test_words_that_are_cut_off_have_no_token(truncate, expected):
    state = text.fit({"vocab_size": 12, "max_tokens": 6, "truncate": truncate}, ["ab abc"])
    state = text.TextState(**{**vars(state), "before": (1,), "after": (1,)})
    found = words.encode(state, [["abc", "abc", "abc"]])
    # four places are left between the template's two tokens, and each word has two
    assert (found.ids[0] != 0).all() and found.ids[0, [0, -1]].tolist() == [1, 1]
    assert found.firsts[0].tolist() == expected


def test_texts_are_cut_at_spaces_and_signs_at_their_ends():
    cut = words.cut("  “Ann's (U.S.)” paid 3.5 €, twice…")
    assert cut.words == (
        "“", "Ann's", "(", "U.S", ".", ")", "”", "paid", "3.5", "€", ",", "twice", "…",
    )  # fmt: skip
    assert words.cut("").words == words.cut(" \n").words == ()
    assert words.cut("?!").words == ("?", "!")


def test_a_text_input_by_words_takes_texts_and_lists_and_is_saved():
    one = TextInput("text", STATES["wordpiece"], by_word=True)
    both = one.encode([["Berlin", "."], "Berlin."])
    np.testing.assert_array_equal(both[0], both[1])
    assert from_meta(one.meta()) == one
    assert not from_meta(TextInput("text", STATES["wordpiece"]).meta()).by_word
