from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jdlopt.data.augment import AUGMENTATIONS
from jdlopt.data.augment.text.synonyms import read_synonyms
from jdlopt.data.augment.text.token_swap import swapped
from jdlopt.errors import DataError

TEXT = {name: part for name, part in AUGMENTATIONS.items() if part.fits == ("tokens",)}

VOCABULARY = 30
LENGTHS = np.array([12, 11, 5, 1, 0, 2])
IDS = np.where(
    np.arange(12) < LENGTHS[:, None],
    np.random.default_rng(0).integers(1, VOCABULARY, (6, 12)),
    0,
).astype(np.int32)
# tokens 10 to 19 have 1 to 3 synonyms, as has the last of the table; of padding, none may be used
SYNONYMS = np.zeros((VOCABULARY - 5, 3), np.int32)
SYNONYMS[[0, -1], 0] = 20
for token in range(10, 20):
    SYNONYMS[token, : 1 + token % 3] = 20 + np.arange(1 + token % 3)


@functools.cache
def program(name):
    """The compiled augmentation, and a list that grows with each trace."""
    traces = []

    def run(key, ids, strength):
        traces.append(ids.shape)
        return apply(name)(key, ids, strength)

    return jax.jit(run), traces


def apply(name):
    options = {"table": jnp.asarray(SYNONYMS)} if name == "synonyms" else {}
    return functools.partial(TEXT[name].apply, **options)


def run(name, ids, strength, seed=0):
    return np.asarray(program(name)[0](jax.random.key(seed), ids, jnp.float32(strength)))


# --- what holds for all ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXT)
def test_strength_0_is_the_identity_and_needs_no_program_of_its_own(name):
    changed = run(name, IDS, 1.0)
    np.testing.assert_array_equal(run(name, IDS, 0.0), IDS)
    run(name, IDS, 0.25)
    assert program(name)[1].count(IDS.shape) == 1
    assert changed.dtype == np.int32
    assert (changed != IDS).any()
    assert ((changed == 0) == (IDS == 0)).all()  # padding stays, and no token becomes padding


@pytest.mark.parametrize("name", TEXT)
def test_each_example_has_its_own_draw_and_each_key_its_own(name):
    same = np.tile(np.arange(8, 20, dtype=np.int32), (32, 1))
    changed = run(name, same, 0.5)
    assert len({row.tobytes() for row in changed}) > 20
    np.testing.assert_array_equal(run(name, same, 0.5), changed)
    assert (run(name, same, 0.5, seed=1) != changed).any()


@pytest.mark.parametrize("name", TEXT)
def test_a_population_of_strengths_equals_each_alone(name):
    keys = jax.random.split(jax.random.key(3), 3)
    strengths = jnp.array([0.0, 0.3, 0.9])
    together = jax.jit(jax.vmap(apply(name), (0, None, 0)))(keys, IDS, strengths)
    for key, strength, result in zip(keys, strengths, together):
        np.testing.assert_array_equal(result, program(name)[0](key, IDS, strength))


# --- each by itself -------------------------------------------------------------------------------


def test_token_dropout_makes_tokens_unknown_with_the_probability():
    ids = np.full((100, 50), 7, np.int32)
    dropped = run("token_dropout", ids, 0.2)
    assert set(np.unique(dropped)) == {1, 7}
    assert stats.binomtest(int((dropped == 1).sum()), ids.size, 0.2).pvalue > 0.001
    np.testing.assert_array_equal(run("token_dropout", IDS, 1.0), (IDS != 0).astype(np.int32))


@given(st.lists(st.integers(0, 4), min_size=9, max_size=9), st.integers(0, 511))
@settings(max_examples=50, deadline=None)
def test_swapped_exchanges_marked_pairs_unless_one_is_padding(ids, bits):
    marks = [bool(bits >> place & 1) for place in range(9)]
    for place in range(8):
        marks[place + 1] = marks[place + 1] and not marks[place]
    expected = list(ids)
    for place in range(8):
        if marks[place] and ids[place] and ids[place + 1]:
            expected[place], expected[place + 1] = ids[place + 1], ids[place]
    result = SWAPPED(np.array([ids], np.int32), np.array([marks]))
    assert result[0].tolist() == expected


SWAPPED = jax.jit(swapped)


def test_token_swap_pairs_each_token_with_one_neighbour():
    ids = np.tile(np.arange(2, 14, dtype=np.int32), (400, 1))
    swapped = run("token_swap", ids, 1.0)
    even = np.array([3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12])
    odd = np.array([2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 13])
    is_even, is_odd = (swapped == even).all(axis=1), (swapped == odd).all(axis=1)
    assert (is_even | is_odd).all()
    assert stats.binomtest(int(is_even.sum()), 400, 0.5).pvalue > 0.001
    some = run("token_swap", ids, 0.3)
    pairs = 5.5 * 400  # six pairs or five
    swaps = (some != ids).sum() / 2
    assert abs(swaps - 0.3 * pairs) < 4 * np.sqrt(0.21 * pairs)
    np.testing.assert_array_equal(np.sort(some, axis=1), ids)


def test_synonyms_come_from_the_table_uniformly():
    ids = np.tile(np.arange(VOCABULARY, dtype=np.int32), (900, 1))
    replaced = run("synonyms", ids, 1.0)
    assert (replaced[:, 0] == 0).all()
    for token in range(1, VOCABULARY):
        found, counts = np.unique(replaced[:, token], return_counts=True)
        listed = SYNONYMS[token][SYNONYMS[token] > 0] if token < len(SYNONYMS) else []
        assert found.tolist() == (list(listed) if len(listed) else [token])
        assert len(found) == 1 or stats.chisquare(counts).pvalue > 0.001
    some = run("synonyms", np.full((100, 50), 11, np.int32), 0.2)
    assert stats.binomtest(int((some != 11).sum()), some.size, 0.2).pvalue > 0.001


# --- files of synonyms ----------------------------------------------------------------------------

TOKENS = {"<pad>": 0, "<unk>": 1, "big": 2, "large": 3, "huge": 4, "cat": 5, "feline": 6, "run": 7}


def write(tmp_path, content, encoding="utf-8"):
    file = tmp_path / "synonyms.tsv"
    file.write_bytes(content.encode(encoding))
    return file


def test_a_file_of_synonyms_becomes_a_table(tmp_path):
    file = write(
        tmp_path,
        "big\tlarge huge big enormous large\n\r\n"
        "dog\thound\n"
        "cat\tfeline\r\n"
        "<unk>\tcat\n"
        "run\tsprint <unk> <pad>\n"
        "cat\tbig feline",
    )
    table = read_synonyms(file, TOKENS)
    assert table.dtype == np.int32
    expected = np.zeros((8, 2), np.int32)
    expected[2] = [3, 4]
    expected[5] = [6, 2]
    np.testing.assert_array_equal(table, expected)
    np.testing.assert_array_equal(read_synonyms(str(file), TOKENS), table)


words = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=4)


@given(st.dictionaries(words, st.lists(words, min_size=1, max_size=4), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_every_synonym_of_the_vocabulary_is_read(tmp_path_factory, entries):
    everything = sorted({*entries, *(other for listed in entries.values() for other in listed)})
    tokens = {word: 2 + number for number, word in enumerate(everything)}
    file = write(
        tmp_path_factory.mktemp("synonyms"),
        "".join(f"{word}\t{' '.join(listed)}\n" for word, listed in entries.items()),
    )
    expected = {word: {*listed} - {word} for word, listed in entries.items()}
    if not any(expected.values()):
        with pytest.raises(DataError, match="none of its"):
            read_synonyms(file, tokens)
        return
    table = read_synonyms(file, tokens)
    for word, token in tokens.items():
        listed = {everything[id_ - 2] for id_ in table[token] if id_}
        assert listed == expected.get(word, set())


@pytest.mark.parametrize(
    ("line", "problem"),
    [("big large", "no tab"), ("\tlarge", "no word before the tab"), ("big\t ", "no synonyms")],
)
def test_a_bad_line_is_named(tmp_path, line, problem):
    file = write(tmp_path, f"cat\tfeline\n\n{line}\n")
    with pytest.raises(DataError, match=rf"synonyms\.tsv, row 3: has {problem}.*Expected a word"):
        read_synonyms(file, TOKENS)


def test_an_unusable_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.tsv: can't be read"):
        read_synonyms(tmp_path / "nowhere.tsv", TOKENS)
    with pytest.raises(DataError, match=r"synonyms\.tsv: is not text in UTF-8"):
        read_synonyms(write(tmp_path, "café\tbar\n", "latin-1"), TOKENS)
    for content in ("", "Big\tLarge\nCat\tFeline\n"):
        with pytest.raises(DataError, match=r"none of its \d words has a synonym"):
            read_synonyms(write(tmp_path, content), TOKENS)
