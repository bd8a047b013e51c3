"""Sequence to sequence: pairs of texts, an encoder-decoder, what it writes, in every verb."""

from __future__ import annotations

import csv
import io
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdlopt.cli import main
from jdlopt.data import open_dataset
from jdlopt.data.coding import END, PAD
from jdlopt.data.given import given_targets
from jdlopt.data.target_texts import decode
from jdlopt.errors import ConfigError, DataError, UserError
from jdlopt.metrics import all_metrics, make_collector
from jdlopt.models import Model, beam, make_model
from jdlopt.models.seq2seq import DECODER_MASK
from jdlopt.report.texts import edits
from jdlopt.tasks.seq2seq import teacher_forcing
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment

CHARACTERS = {"tokenizer": "characters", "min_frequency": 1, "max_tokens": 8}
DATA = {
    "task": "seq2seq",
    "text_column": "word",
    "target": "reversed",
    "text": {**CHARACTERS, "lowercase": False},
    "target_text": CHARACTERS,
    "batch_size": 32,
}
MODEL = {
    "name": "transformer_seq2seq", "features": 32, "num_layers": 1, "num_heads": 2,
    "mlp_features": 32, "max_positions": 8,
}  # fmt: skip


def words(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcd"), rng.integers(2, 6))) for _ in range(count)]


def table(folder, rows, name="words.csv"):
    lines = ["word,reversed", *(f"{one},{other}" for one, other in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder / name)


def opened(source, **changes):
    return open_dataset({**DATA, "source": source, **changes})


# --- data -----------------------------------------------------------------------------------------


def test_targets_are_tokens_of_their_own_vocabulary_with_an_end(tmp_path):
    given = [(one, one[::-1]) for one in words()]
    dataset = opened(table(tmp_path, given))
    spec, train = dataset.spec, dataset.read("train")
    assert spec.positions == 1 and spec.class_names[:3] == ("[END]", "[UNK]", " ")
    assert train.targets.dtype == np.int32 and train.targets.shape[1] == spec.target_shape[0] == 6
    for row in train.targets:
        (end,) = np.flatnonzero(row == END)
        assert (row[:end] > 0).all() and (row[end + 1 :] == PAD).all()
    rows = dataset.rows("train")
    assert decode(train.targets, spec.target_text) == [given[row][1] for row in rows]
    again = given_targets(["abc", "d"], type(spec).from_dict(spec.to_dict()), 2)
    assert decode(again, spec.target_text) == ["abc", "d"]
    learnt = {one for row in rows for one in given[row][1]}
    assert set(spec.class_names[3:]) == learnt  # of the training rows alone


def test_line_files_make_the_same_data_as_a_table(tmp_path):
    given = [(one, one[::-1]) for one in words()]
    for name, place in (("in.de", 0), ("out.en", 1)):
        text = "\n".join(pair[place] for pair in given) + "\n"
        (tmp_path / name).write_text(text, "utf-8")
    lines = opened(str(tmp_path / "in.de"), target=str(tmp_path / "out.en"), text_column=None).read(
        "train"
    )
    one = opened(table(tmp_path, given)).read("train")
    np.testing.assert_array_equal(lines.inputs, one.inputs)
    np.testing.assert_array_equal(lines.targets, one.targets)
    (tmp_path / "out.en").write_text("one\n", "utf-8")
    with pytest.raises(DataError, match=r"60 lines and .* has 1"):
        opened(str(tmp_path / "in.de"), target=str(tmp_path / "out.en"), text_column=None)


def test_rows_that_cannot_be_used_are_named_or_left_out(tmp_path):
    given = [(one, one[::-1]) for one in words()]
    empty = table(tmp_path, [*given[:6], ("ab", ""), *given[6:]])
    with pytest.raises(DataError, match=r"row 7 has an empty target"):
        opened(empty)
    long = table(tmp_path, [*given[:3], ("ab", "abcdabcdabcd"), *given[3:]])
    with pytest.raises(DataError, match=r"row 4 has a target of 13 tokens.*room for 8.*max_tokens"):
        opened(long)
    kept = opened(long, on_bad="skip")
    assert sum(kept.sizes.values()) == 60 and kept.skipped == {"target too long": 1}
    with pytest.raises(DataError, match=r"data\.text_column.*found None"):
        opened(long, text_column=None)
    np.savez(tmp_path / "made.npz", x=np.zeros((9, 2)), y=np.arange(9))
    with pytest.raises(DataError, match="pairs of texts"):
        opened(str(tmp_path / "made.npz"), text_column=None, target=None)


def test_several_files_share_the_vocabulary_of_the_training_rows(tmp_path):
    given = [(one, one[::-1]) for one in words()]
    test = table(tmp_path, [("abz", "zba")], "test.csv")
    dataset = opened(table(tmp_path, given), test_source=test)
    assert "z" not in dataset.spec.class_names
    assert decode(dataset.read("test").targets, dataset.spec.target_text) == ["[UNK]ba"]


# --- the model ------------------------------------------------------------------------------------


def model_and(batch=3, outputs=7, **changes):
    section = {**MODEL, "features": 8, "mlp_features": 8, **changes}
    model = make_model(section, outputs, tokens=9, positions=1, target_inputs=("decoder_input",))
    source = jax.random.randint(jax.random.key(0), (batch, 5), 0, 9)
    before = jax.random.randint(jax.random.key(1), (batch, 6), 0, outputs)
    inputs = {"input": source, "decoder_input": before}
    shapes = jax.eval_shape(model.init, jax.random.key(2), inputs, {})
    rng = np.random.default_rng(0)
    params, state = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape, scale=0.5).astype(np.float32), shapes
    )
    return model, params, state, inputs


def test_a_token_at_a_time_says_what_the_whole_target_says():
    """The law of cached decoding: outputs of teacher forcing at what was written are its own."""
    model, params, state, inputs = model_and()

    @jax.jit
    def program(params):
        written = beam.search(model, params, state, inputs["input"], {}, length=6)
        forced = teacher_forcing(inputs["input"], written)
        later = {**forced, "decoder_input": forced["decoder_input"].at[:, 4:].set(3)}
        outputs, others = (
            model.apply(params, state, given, {}, key=None, train=False)[0]
            for given in (forced, later)
        )
        return written, outputs, others

    written, forced, later = jax.device_get(program(params))
    real = written != PAD
    np.testing.assert_array_equal(forced.argmax(-1)[real], written[real])
    np.testing.assert_allclose(forced[:, :4], later[:, :4], atol=1e-6)
    assert np.abs(forced[:, 4:] - later[:, 4:]).max() > 1e-3


def bigrams(tokens=4, seed=0):
    """A model whose next token depends on the last one and on the source's first token."""
    rng = np.random.default_rng(seed)
    scores = jnp.asarray(rng.normal(size=(3, tokens, tokens)) * 2, jnp.float32)

    def apply(params, state, inputs, hparams, *, key, train, updates):
        source = inputs["input"][:, 0] if "input" in inputs else state["memory"]["first"]
        last = inputs["decoder_input"][:, 0]
        kept = state.get("cache", {"last": last})
        state = {
            "memory": {"first": source},
            "cache": {"last": jnp.where(kept["last"] < 0, 0, last)},
        }
        assert inputs[DECODER_MASK].shape[1] == 3
        return params[source, last][:, None], state

    return Model(lambda *_: (scores, {}), apply), scores


def best_of(scores, source, length, penalty):
    """Every sequence that ends within the length, the best by its score."""
    logs = np.asarray(jax.nn.log_softmax(scores[source]), np.float64)
    found = []
    for count in range(length):
        for body in itertools.product(range(1, logs.shape[0]), repeat=count):
            whole = (*body, END)
            total = sum(logs[one, other] for one, other in zip((END, *body), whole))
            found.append((total / len(whole) ** penalty, whole))
    return max(found)[1]


@pytest.mark.parametrize("penalty", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences_and_a_beam_of_one_is_greedy(penalty):
    model, scores = bigrams()
    source = jnp.array([[0], [1], [2]])

    def written(width):
        found = beam.search(
            model, scores, {}, source, {}, length=3, width=width, length_penalty=penalty
        )
        return [tuple(one for one in row if one != PAD) for row in found.tolist()]

    assert written(64) == [best_of(scores, place, 3, penalty) for place in range(3)]
    for place, row in enumerate(written(1)):
        last, greedy = END, []
        while len(greedy) < 3 and (not greedy or last != END):
            last = int(scores[place, last].argmax())
            greedy.append(last)
        assert row == tuple(greedy)


REFUSED = {
    "model.name": ("mlp", "writes no sequence"),
    "model.max_positions": (3, r"model\.max_positions: 3 is fewer"),
    "train.cache_features": (True, r"train\.cache_features"),
    "train.metrics": (("f1",), "seq2seq"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_had_is_said_in_one_line(key, tmp_path):
    source, (value, expected) = table(tmp_path, [(one, one[::-1]) for one in words()]), REFUSED[key]
    section, _, name = key.partition(".")
    model = {"name": value} if key == "model.name" else MODEL
    raw = {"data": {**DATA, "source": source}, "model": model}
    raw[section] = {**raw.get(section, {}), name: value}
    with pytest.raises(ConfigError, match=expected):
        Experiment.build(raw)


def test_one_matrix_for_both_sides_needs_one_vocabulary():
    with pytest.raises(ConfigError, match=r"share_embeddings.*9 and 7"):
        model_and(share_embeddings="all")
    counts = {
        shared: sum(
            leaf.size for leaf in jax.tree.leaves(model_and(outputs=9, share_embeddings=shared)[1])
        )
        for shared in ("none", "decoder", "all")
    }
    assert counts["none"] - counts["decoder"] == 8 * 9 + 9  # outputs of their own, with a bias
    assert counts["decoder"] - counts["all"] == 8 * (9 + 8)  # tokens and positions


# --- metrics and reports --------------------------------------------------------------------------


def test_token_accuracy_leaves_out_padding_and_padded_examples():
    collector = make_collector(["token_accuracy"], "seq2seq", 3)
    targets = jnp.array([[1, 0, PAD], [2, 2, 0], [1, 0, PAD]])
    outputs = jax.nn.one_hot(jnp.array([[1, 1, 1], [2, 2, 0], [1, 0, 0]]), 3)
    leaves = collector.collect(
        outputs, outputs, targets, jnp.array([1.0, 1.0, 0.0]), jnp.array([0.5, 0.0, 9.0])
    )
    assert collector.finish([leaves])["token_accuracy"] == pytest.approx(4 / 5)


def test_decoded_metrics_are_measured_at_the_end_alone():
    assert {"token_accuracy", "exact_match"} <= set(all_metrics("seq2seq", 9))
    asked = []
    collector = make_collector(["token_accuracy"], "seq2seq", 3)
    targets, outputs = jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 3, 3))
    ones = jnp.ones(2)
    collector.collect(outputs, outputs, targets, ones, ones, lambda: asked.append(1))
    assert not asked


def test_a_target_with_an_unknown_character_is_never_an_exact_match(tmp_path):
    given = [(one, one[::-1]) for one in words()]
    test = table(tmp_path, [("abz", "zba"), ("abc", "cba")], "test.csv")
    dataset = opened(table(tmp_path, given), test_source=test)
    known, targets = dataset.spec.target_text, dataset.read("test").targets
    assert decode(targets, known) == ["[UNK]ba", "cba"]
    collector = make_collector(
        ["exact_match"], "seq2seq", dataset.spec.num_classes, told=lambda made: decode(made, known)
    )
    ones, shares = jnp.ones(2), jnp.zeros((*targets.shape, 1))
    written = lambda: jnp.where(targets == PAD, END, targets)  # noqa: E731
    leaves = collector.collect(shares, shares, jnp.asarray(targets), ones, ones, written)
    assert collector.finish([leaves])["exact_match"] == 0.5


def test_edits_lead_from_what_was_written_to_the_target():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = ("".join(rng.choice(list("ab c"), 8)) for _ in range(2))
        pieces = edits(one, other)
        assert "".join(text for kind, text in pieces if kind != "missing") == one
        assert "".join(text for kind, text in pieces if kind != "wrong") == other


# --- in every verb --------------------------------------------------------------------------------


def config(folder, count=120):
    source = table(folder, [(one, one[::-1]) for one in words(count)])
    return {"data": {**DATA, "source": source}, "model": MODEL}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reversed")
    raw = {
        **config(folder, 800),
        "optim": {"name": "adamw", "learning_rate": 0.01, "schedule": {"name": "cosine"}},
        "train": {"epochs": 20, "tensorboard": False},
    }
    (folder / "config.json").write_text(json.dumps(raw))
    assert main(["train", f"--config={folder / 'config.json'}", f"--workdir={folder / 'run'}"]) == 0
    return folder


@pytest.mark.slow
def test_a_run_learns_to_reverse_words(trained):
    found = json.loads((trained / "run" / "result.json").read_text())
    assert found["best"]["metric"] == "validation/loss"
    assert found["metrics"]["test/exact_match"] > 0.9
    assert found["metrics"]["test/token_accuracy"] > 0.95


@pytest.mark.slow
def test_predictions_are_texts_of_new_sources(trained, capsys):
    new = table(trained, [("abcd", "?"), ("dd", "?")], "new.csv")
    capsys.readouterr()
    for more in ([], ["--beam-width=3", "--length-penalty=0.6"]):
        assert main(["predict", str(trained / "run"), f"--input={new}", *more]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["prediction"] for row in rows] == ["dcba", "dd"]
    (trained / "new.txt").write_text("abcd\n")
    assert main(["predict", str(trained / "run"), f"--input={trained / 'new.txt'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] == ["dcba"]
    with pytest.raises(UserError, match="--tta"):
        serve.predict_run(trained / "run", new, tta=2)


@pytest.mark.slow
def test_a_beam_and_its_penalty_are_asked_for_when_evaluating(trained):
    plain = serve.evaluate_run(trained / "run", "test")["metrics"]
    wide = serve.evaluate_run(trained / "run", "test", beam_width=4)["metrics"]
    assert plain["test/loss"] == pytest.approx(wide["test/loss"])
    assert wide["test/exact_match"] > 0.9


@pytest.mark.slow
def test_bleu_and_chrf_are_those_of_the_texts(trained):
    library = pytest.importorskip("sacrebleu")
    experiment = serve.experiment_with_data(trained / "run")
    weights, _ = serve.load_weights(experiment, trained / "run", "best")
    arrays = experiment.data.read("test")
    spec = experiment.spec
    written = decode(
        np.asarray(experiment.predict(weights, arrays.inputs).outputs), spec.target_text
    )
    true = decode(arrays.targets, spec.target_text)
    found = serve.measure(experiment, weights, "test")
    assert found["test/chrf"] == pytest.approx(library.corpus_chrf(written, [true]).score)
    assert found["test/bleu"] == pytest.approx(library.corpus_bleu(written, [true]).score)
    right = np.mean([one == other for one, other in zip(written, true, strict=True)])
    assert found["test/exact_match"] == right


@pytest.mark.slow
def test_a_report_shows_what_is_to_be_changed(trained):
    assert main(["report", str(trained / "run")]) == 0
    page = (trained / "run" / "report.html").read_text()
    assert "Written texts" in page and "right to the letter" in page
