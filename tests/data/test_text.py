from __future__ import annotations

import copy
import json
import os
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from jdlopt.data import text as text_room
from jdlopt.data import vocabulary
from jdlopt.data.text import TRUNCATIONS, TextFields, decode, encode, fit, from_json, to_json
from jdlopt.data.text_cleaning import clean
from jdlopt.errors import ConfigError, DataError

TEXTS = [
    "The cat sat on the mat.",
    "A dog ran after the cat, and the cat ran away!",
    "Running dogs don't sit on mats; cats do.",
    "naïve café 日本語 👩‍👩‍👧 مرحبا",
]
ANY_TEXT = st.text(st.characters(), max_size=40)  # lone surrogates among them
SETTINGS = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def wordpiece():
    return fit({"vocab_size": 200, "max_tokens": 24}, TEXTS)


@pytest.fixture(scope="module")
def bpe():
    return fit({"tokenizer": "bpe", "vocab_size": 300, "max_tokens": 400}, TEXTS)


# --- cleaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        (" \t\n\r\u00a0\u2003\u3000 ", ""),
        ("a\x00b\x07c\x7fd", "abcd"),
        ("zero\u200bwidth \ufeffmark soft\u00adhyphen", "zerowidth mark softhyphen"),
        ("ﬁne ①² Ｗｉｄｅ", "fine 12 Wide"),
        ("e\u200b\u0301", "é"),
        ("lone \ud800 surrogate\udfff", "lone surrogate"),
        ("👩\u200d👩\u200d👧 می\u200cخواهم", "👩\u200d👩\u200d👧 می\u200cخواهم"),
        ("\u202eright\u202c to left مرحبا", "right to left مرحبا"),
        ("line\u2028break\x85next", "line break next"),
    ],
)
def test_cleaning(raw, expected):
    assert clean(raw) == expected


def test_lower_case_and_html():
    assert clean("ÀB ΑΣ", lowercase=True) == "àb ας"
    assert clean("a<br />b<!-- no -->c <p class='x'>d</p>", html=True) == "a b c d"
    assert clean("&lt;b&gt; &amp;amp; &#233; &euro;", html=True) == "<b> &amp; é €"
    assert clean("3 < 4 and 5 > 2, x<3", html=True) == "3 < 4 and 5 > 2, x<3"
    assert clean("<b>&amp;</b>") == "<b>&amp;</b>"
    assert clean("&#" + "9" * 5000 + "; &#xD800;", html=True) == "\ufffd \ufffd"


@given(ANY_TEXT, st.booleans())
@example("İ\u0307ǅ", True)
@SETTINGS
def test_what_is_clean_stays_as_it_is(raw, lowercase):
    cleaned = clean(raw, lowercase=lowercase)
    assert clean(cleaned, lowercase=lowercase) == cleaned
    assert unicodedata.is_normalized("NFKC", cleaned)
    assert cleaned == " ".join(cleaned.split())
    cleaned.encode("utf-8")  # no surrogates
    kinds = {unicodedata.category(character) for character in set(cleaned) - {"\u200c", "\u200d"}}
    assert not kinds & {"Cc", "Cf", "Cs"}


@given(st.text(st.sampled_from("<>/!ab &#;0-x\x00"), max_size=60))
@SETTINGS
def test_html_never_fails_and_leaves_no_tag(raw):
    cleaned = clean(raw, html=True)
    assert "<a>" not in clean(raw.replace("&", ""), html=True)
    assert "\x00" not in cleaned


# --- vocabularies ---------------------------------------------------------------------------------


def many_texts():
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 7))) for _ in range(200)]
    return [" ".join(draw.choices(words, k=30)) for _ in range(40)]


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe"])
def test_equal_texts_give_an_equal_vocabulary_in_any_order(tokenizer):
    texts = many_texts()
    fields = {"tokenizer": tokenizer, "vocab_size": 400}
    first = fit(fields, texts)
    assert 350 < first.vocab_size <= 400
    assert all(fit(fields, order) == first for order in (texts, texts[::-1], texts[7:] + texts[:7]))
    assert fit(fields, texts[:20]) != first


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1), st.integers(4, 60))
@SETTINGS
def test_a_vocabulary_keeps_within_its_size(texts, vocab_size):
    if not any(clean(text) for text in texts):
        return
    state = fit({"vocab_size": vocab_size}, texts)
    assert state.vocab_size <= vocab_size
    assert state.tokens[:2] == ("[PAD]", "[UNK]")
    assert len(set(state.tokens)) == state.vocab_size


def longest_first(text, tokens):
    """WordPiece's greedy rule, for texts without punctuation or Chinese."""
    number = {token: index for index, token in enumerate(tokens)}
    ids = []
    for word in text.split():
        pieces, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            stops = range(len(word), start, -1)
            stop = next((stop for stop in stops if mark + word[start:stop] in number), None)
            if stop is None:
                pieces = [1]
                break
            pieces.append(number[mark + word[start:stop]])
            start = stop
        ids += pieces
    return ids


@given(st.text(st.sampled_from("abcdefghz "), max_size=60))
@example("z abz zab abc")
@SETTINGS
def test_wordpiece_takes_the_longest_piece_first(raw):
    state = fit({"vocab_size": 60, "max_tokens": 70}, many_texts()[:5])
    expected = longest_first(raw, state.tokens)
    assert encode(state, [raw])[0].tolist() == expected + [0] * (70 - len(expected))


def test_unknown_words(wordpiece):
    ids = encode(wordpiece, ["the Ω cat", "xyzzy" * 30, "THE CAT"])
    assert ids[0, 1] == 1 and ids[1, 0] == 1  # a character that training never had; too long
    assert ids[2].tolist() == [ids[0, 0], ids[0, 2], *[0] * 22]
    assert decode(wordpiece, ids)[0] == "the [UNK] cat"


def test_the_vocabulary_is_the_training_texts_alone():
    state = fit({"vocab_size": 300, "min_frequency": 1}, ["apple pear", "pear apple"])
    assert {"apple", "pear"} <= set(state.tokens)
    assert {character for token in state.tokens[2:] for character in token} == set("aeplr#")
    single = fit({"min_frequency": 100}, ["apple pear"] * 50)
    assert {len(token.removeprefix("##")) for token in single.tokens[2:]} == {1}
    assert not {"e", "##e"} - set(single.tokens)


@given(ANY_TEXT)
@example("[PAD] <pad> [UNK]")
@example(" \u00a0 a  b ")
@SETTINGS
def test_byte_pairs_lose_nothing(bpe, raw):
    ids = encode(bpe, [raw])
    assert decode(bpe, ids) == [clean(raw, lowercase=True)]
    assert 1 not in ids


def test_texts_cannot_name_padding_or_unknown(wordpiece, bpe):
    own = fit({"lowercase": False}, ["[PAD] [UNK] PAD UNK"] * 3)
    for state, unknown in ((own, False), (bpe, False), (wordpiece, True)):
        ids = encode(state, ["[PAD] [UNK]"])[0]
        assert 0 not in ids[: np.max(np.flatnonzero(ids)) + 1]
        assert (1 in ids) == unknown  # brackets are unknown to that one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 3}, "3 leaves no place"),
        ({"tokenizer": "bpe", "vocab_size": 257}, "257 is too small.*at least 258"),
        ({"tokenizer": "wordpeice"}, "'wordpeice' is unknown.*Did you mean 'wordpiece'.*bpe"),
        ({"stop_words": "englich"}, "'englich' is unknown.*Did you mean 'english'"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ConfigError, match=message):
        fit(fields, TEXTS)


def test_training_texts_without_words():
    for texts in ([], ["", " \n", "\x00"]):
        with pytest.raises(DataError, match=r"no word after cleaning\. Is data.text_column"):
            fit({}, texts)
    with pytest.raises(DataError, match="and without stop words"):
        fit({"stop_words": "english"}, ["the of", "and"])


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("missing", [None, float("nan"), 3])
def test_a_missing_text_is_named(wordpiece, missing):
    for call in (lambda texts: fit({}, texts), lambda texts: encode(wordpiece, texts)):
        with pytest.raises(DataError, match="row 1 \\(counted from 0\\) holds"):
            call(["a", missing, "b"])


# --- encoding -------------------------------------------------------------------------------------


def test_padding_shape_and_bytes(wordpiece):
    ids = encode(wordpiece, ["the cat", "", b"the cat", b"\xff"])
    assert ids.shape == (4, 24) and ids.dtype == np.int32
    assert (ids[0, :2] > 1).all() and not ids[0, 2:].any() and not ids[1].any()
    np.testing.assert_array_equal(ids[0], ids[2])
    assert encode(wordpiece, []).shape == (0, 24)


@pytest.mark.parametrize("most", [1, 2, 5, 6, 100])
def test_truncation(most):
    texts = ["the cat sat on the mat and ran", "the", ""]
    whole = [row[row > 0] for row in encode(fit({"max_tokens": 100}, TEXTS), texts)]
    for side in TRUNCATIONS:
        state = fit({"max_tokens": most, "truncate": side}, TEXTS)
        for row, tokens in zip(encode(state, texts), whole):
            excess = max(0, len(tokens) - most)
            first = {"end": most, "start": 0, "middle": (most + 1) // 2}[side]
            expected = np.delete(tokens, np.s_[first : first + excess]) if excess else tokens
            assert row.tolist() == expected.tolist() + [0] * (most - len(expected))


@given(st.lists(ANY_TEXT, max_size=4))
@example(["", "\ud800", "👩‍👩‍👧‍👦🏳️‍🌈", "שלום مرحبا", "\u0301" * 5])
@SETTINGS
def test_any_text_has_ids(wordpiece, bpe, texts):
    for state in (wordpiece, bpe):
        ids = encode(state, texts)
        assert ids.shape == (len(texts), state.max_tokens)
        assert ids.size == 0 or (ids.min() >= 0 and ids.max() < state.vocab_size)
        assert (np.diff((ids == 0).astype(int), axis=1) >= 0).all()  # padding is at the end
        assert [not row.any() for row in ids] == [not clean(text) for text in texts]
        assert all(isinstance(text, str) for text in decode(state, ids))


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe"])
def test_megabytes_of_one_thing(tokenizer):
    size = 1 << 20
    texts = ["x" * size, "a" + "\u0301\u0316" * (size // 2), "\ud800" * size, "<" * size]
    state = fit({"tokenizer": tokenizer, "html": True}, [*texts, "a word"])
    assert encode(state, texts).shape == (4, 128)
    assert len(clean(texts[1])) <= 32


@pytest.mark.usefixtures("unchecked_types")
def test_decoding_refuses_what_is_no_id(wordpiece):
    with pytest.raises(DataError, match=r"row 1, token 0 is 999; .* 0 to \d+"):
        decode(wordpiece, np.array([[2, 0], [999, 0]]))
    with pytest.raises(DataError, match="expected integers"):
        decode(wordpiece, np.zeros((1, 2)))


# --- stop words -----------------------------------------------------------------------------------


def test_english_stop_words_are_scikit_learns():
    kept = "cats don't it's mat"
    fields = {"stop_words": "english", "lowercase": False}
    state = fit(fields, [kept])
    every = " ".join(word.upper() for word in sorted(ENGLISH_STOP_WORDS))
    ids = encode(state, [every, f"The {kept} of {every}", kept])
    assert not ids[0].any()
    np.testing.assert_array_equal(ids[1], ids[2])
    assert ids[2].any()


def test_stop_words_of_a_file(tmp_path):
    path = tmp_path / "stop.txt"
    path.write_text("Cat\n\ndon’t\n", encoding="utf-8")
    state = fit({"stop_words": str(path)}, TEXTS)
    assert state.stop_words == ("cat", "don't")
    path.unlink()  # the run keeps the words
    np.testing.assert_array_equal(*encode(state, ["the cat DON'T cats sit", "the cats sit"]))
    path.write_text("cat\ntwo words\n")
    with pytest.raises(DataError, match=r"stop.txt, row 2: found 'two words', expected one word"):
        fit({"stop_words": str(path)}, TEXTS)
    with pytest.raises(DataError, match=r"stop_words: .*none.txt can't be read: No such file"):
        fit({"stop_words": str(tmp_path / "none.txt")}, TEXTS)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"stop.txt can't be read: is not UTF-8"):
        fit({"stop_words": str(path)}, TEXTS)


# --- tokenizer files ------------------------------------------------------------------------------

FOREIGN = {"cat": 0, "the": 2, "<unk>": 3, "dog": 4, "<pad>": 7, "[CLS]": 9}


def foreign(**changes):
    """A file as others write them: ids with gaps, a template, truncation and padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel(FOREIGN, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 9)]
    )
    tokenizer.add_special_tokens(["<pad>", "[CLS]"])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(pad_id=7, pad_token="<pad>", length=9)
    return json.dumps(json.loads(tokenizer.to_str()) | changes)


def test_a_tokenizer_file_keeps_its_tokens_and_gets_our_ids(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(foreign())
    state = fit({"tokenizer": str(path), "max_tokens": 6}, [])
    assert state.tokens == ("<pad>", "<unk>", "cat", "the", "dog", "[CLS]")
    ids = encode(state, ["The dog saw cat", "<pad> cat"])
    assert ids.tolist() == [[3, 4, 1, 2, 0, 0], [1, 2, 0, 0, 0, 0]]
    assert decode(state, ids) == ["the dog <unk> cat", "<unk> cat"]
    path.write_text(foreign(padding=None).replace("<pad>", "cow"))  # has no padding of its own
    state = fit({"tokenizer": str(path), "max_tokens": 3}, [])
    assert state.tokens == ("[PAD]", "<unk>", "cat", "the", "dog", "cow", "[CLS]")
    assert encode(state, ["cow"]).tolist() == [[5, 0, 0]]


def test_what_was_trained_is_a_tokenizer_file(tmp_path, wordpiece, bpe):
    path = tmp_path / "own.json"
    for trained in (wordpiece, bpe):
        path.write_text(trained.tokenizer, encoding="utf-8")
        state = fit(TextFields(str(path), max_tokens=trained.max_tokens), [])
        assert state.tokens == trained.tokens
        np.testing.assert_array_equal(encode(state, TEXTS), encode(trained, TEXTS))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b'{"version": "1.0"}',
        b"[1, 2]",
        b"[" * 10000,
        foreign().encode()[:-200],
        foreign(model={"type": "WordPiece", "vocab": {"a": "b"}}).encode(),
        foreign(model={"type": "Other", "vocab": {}}).encode(),
        foreign(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}).encode(),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data.text.tokenizer: .*broken.json is no tokenizer in"):
        fit({"tokenizer": str(path)}, TEXTS)


def test_tokenizer_files_that_cannot_be_read(tmp_path):
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "x.json", "No such file")):
        with pytest.raises(DataError, match=f"can't be read: {message}"):
            fit({"tokenizer": str(path)}, TEXTS)


def test_a_tokenizer_that_fails_on_a_text(tmp_path):
    path = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"cat": 0}, "unk_token": "lost"}
    path.write_text(foreign(model=model, added_tokens=[], post_processor=None, padding=None))
    state = fit({"tokenizer": str(path)}, TEXTS)
    assert encode(state, ["cat"])[0, :2].tolist() == [2, 0]
    with pytest.raises(DataError, match="the tokenizer fails on a text"):
        encode(state, ["dog"])


# --- saving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe"])
def test_survives_json(tokenizer):
    fields = {"tokenizer": tokenizer, "vocab_size": 300, "stop_words": "english", "html": True}
    state = fit({**fields, "truncate": "middle", "lowercase": False}, TEXTS)
    back = from_json(json.loads(json.dumps(to_json(state))))
    assert back == state
    np.testing.assert_array_equal(encode(back, TEXTS), encode(state, TEXTS))


BROKEN = {
    "tokenizer": [3, "", "{}", "\ud800", None],
    "max_tokens": ["8", 0, -1, True, 2.5],
    "truncate": ["ends", None, ["end"]],
    "lowercase": [1, "yes"],
    "html": [0, None],
    "stop_words": ["the", [1], {"a": 1}, None],
}


@pytest.mark.parametrize("key", BROKEN)
def test_a_damaged_state_is_named(wordpiece, key):
    good = to_json(wordpiece)
    for value in BROKEN[key]:
        with pytest.raises(DataError, match=f"here: '{key}'"):
            from_json(good | {key: value}, where="here")
    missing = copy.deepcopy(good)
    del missing[key]
    with pytest.raises(DataError, match=f"here: '{key}' is missing"):
        from_json(missing, where="here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(JSON)
@SETTINGS
def test_any_other_json_is_refused(saved):
    with pytest.raises(DataError, match=r"^text: "):
        from_json(saved)


@given(st.dictionaries(st.sampled_from(["model", "added_tokens", "decoder", "padding"]), JSON))
@SETTINGS
def test_damaged_tokenizers_are_data_errors_or_work(changes):
    try:
        state = text_room.TextState(foreign(**changes), 8, "end", True, False, ())
        decode(state, encode(state, ["the cat"]))
    except DataError:
        pass


def test_a_tokenizer_that_does_not_come_to_an_end_is_told(monkeypatch):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("a*a*[^a]"), "isolated")
    state = text_room.TextState(made.to_str(), 4, "end", True, False, ())
    assert encode(state, ["aaa"]).shape == (1, 4)
    monkeypatch.setattr(vocabulary, "LEAST_SECONDS", 0.2)
    with pytest.raises(DataError, match="took more than"):
        encode(state, ["a" * 1500])


def test_a_pipe_is_no_tokenizer(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="no plain file"):
        fit({"tokenizer": str(tmp_path / "tokenizer.json")}, ["a"])
