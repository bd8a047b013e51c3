"""Speech recognition: its loss, metrics and decoders against references, and a run of it."""

from __future__ import annotations

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from jdlopt.cli import main
from jdlopt.data.bundled.tone_digits.tones import RATE, spoken
from jdlopt.data.frames import real_frames
from jdlopt.data.transcript_coding import collapsed
from jdlopt.errors import UserError
from jdlopt.evidence.findings import find
from jdlopt.losses import ctc
from jdlopt.metrics.edits import KEPT, LEFT_OUT, REPLACED, alignment, distances
from jdlopt.metrics.transcripts import error_rate
from jdlopt.models import make_model
from jdlopt.models.frames import blank_where_padded
from jdlopt.report.transcripts import runs
from jdlopt.tasks.prefix_beam import beam_search, likeliest_symbols
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment

RNG = np.random.default_rng(0)
TEXTS = st.text("ab ", max_size=6)


# --- loss -----------------------------------------------------------------------------------------


def test_ctc_is_the_sum_over_all_paths():
    logits = RNG.normal(size=(3, 4, 3)).astype(np.float32)
    targets = np.array([[1, 2], [1, 1], [2, 0]])
    shares = jax.nn.softmax(logits)
    paths = np.array(list(itertools.product(range(3), repeat=4)))
    spelt = collapsed(paths)[:, :2]
    rest = collapsed(paths)[:, 2:].any(axis=1)
    found = jax.jit(ctc)(jnp.asarray(logits), jnp.asarray(targets))
    for row, target in enumerate(targets):
        fitting = paths[(spelt == target).all(axis=1) & ~rest]
        total = sum(np.prod(shares[row, np.arange(4), path]) for path in fitting)
        np.testing.assert_allclose(found[row], -np.log(total), rtol=1e-5)


def test_steps_that_are_surely_blank_count_for_nothing():
    logits = jnp.asarray(RNG.normal(size=(2, 9, 4)), jnp.float32)
    targets = jnp.array([[1, 3, 3], [2, 0, 0]])
    lengths = jnp.array([9, 5])
    real = jnp.arange(9) < lengths[:, None]

    @jax.jit
    def looked(logits):
        def loss(logits):
            each = ctc(blank_where_padded(logits, real), targets)
            return each.sum(), each

        gradient, each = jax.grad(loss, has_aux=True)(logits)
        expected = optax.ctc_loss(logits, 1.0 - real, targets, (targets == 0) * 1.0)
        return gradient, each, expected, ctc(logits[:, :2], jnp.array([[1, 1], [1, 2]]))

    gradient, each, expected, short = looked(logits)
    np.testing.assert_allclose(each, expected, rtol=1e-6)
    assert bool(jnp.isfinite(gradient).all()) and not gradient[1, 5:].any()
    assert float(short[0]) > 5e4 > float(short[1])  # the first needs three steps


# --- metrics --------------------------------------------------------------------------------------


def random_pairs(count):
    words = ["one", "two", "three", "four", "a", "bb", "to"]
    for _ in range(count):
        true = RNG.choice(words, RNG.integers(1, 9)).tolist()
        said = [
            str(RNG.choice(words)) if RNG.random() < 0.2 else word
            for word in true
            for _ in range(int(RNG.choice([0, 1, 1, 1, 1, 2])))
        ]
        yield " ".join(true), " ".join(said)


def test_error_rates_equal_those_of_jiwer():
    jiwer = pytest.importorskip("jiwer")
    true, said = map(list, zip(*random_pairs(1000)))
    assert error_rate(true, said) == pytest.approx(jiwer.wer(true, said), abs=1e-12)
    assert error_rate(true, said, list) == pytest.approx(jiwer.cer(true, said), abs=1e-12)
    each = [jiwer.cer(one, other) for one, other in zip(true, said)]
    assert [error_rate([one], [other], list) for one, other in zip(true, said)] == each


def levenshtein(one, other):
    if not one or not other:
        return len(one) + len(other)
    ways = (levenshtein(one[1:], other) + 1, levenshtein(one, other[1:]) + 1)
    return min(*ways, levenshtein(one[1:], other[1:]) + (one[0] != other[0]))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text("ab", max_size=4), st.text("ab", max_size=4)), max_size=4))
def test_distances_are_the_fewest_edits(pairs):
    true, said = [one for one, _ in pairs], [other for _, other in pairs]
    assert distances(true, said).tolist() == [levenshtein(*pair) for pair in pairs]


@settings(max_examples=40)
@given(TEXTS, TEXTS)
def test_an_alignment_makes_one_of_the_other_in_as_many_edits(true, said):
    edits = alignment(true, said)
    assert sum(edit.kind != KEPT for edit in edits) == distances([true], [said])[0]
    assert "".join(str(edit.true or "") for edit in edits) == true
    assert "".join(str(edit.said or "") for edit in edits) == said
    joined = runs(true, said)
    assert all(one.kind != other.kind for one, other in itertools.pairwise(joined))


def test_what_is_replaced_and_what_is_left_out():
    kinds = [edit.kind for edit in alignment(["one", "two", "six"], ["won", "six"])]
    assert sorted(kinds) == sorted([REPLACED, LEFT_OUT, KEPT])


# --- decoding -------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_wide_beam_finds_the_likeliest_text(seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(3, 0.7), size=5)
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(3), repeat=5):
        symbols = tuple(one for one in collapsed(np.array([path]))[0].tolist() if one)
        total[symbols] = total.get(symbols, 0.0) + float(np.prod(shares[np.arange(5), path]))
    found = likeliest_symbols(shares, 1000)
    assert total[found] == pytest.approx(max(total.values()), rel=1e-3)


def test_a_narrow_beam_sees_past_many_unlikely_classes():
    shares = np.full((6, 300), 1e-4)
    shares[:, :4] = RNG.dirichlet(np.full(4, 0.5), size=6)
    assert likeliest_symbols(shares, 4) == likeliest_symbols(shares[:, :4], 4)
    again = np.array([[0, 1, 0, 0], [0.29, 0.08, 0.32, 0.31]])  # blank and 1 are not the likeliest
    assert likeliest_symbols(again, 1) == (1,)


def test_probabilities_that_are_no_numbers_give_the_likeliest_path():
    shares = np.full((2, 3, 4), np.nan)
    shares[1] = np.eye(4)[[2, 2, 3]]
    assert beam_search(shares, 3).tolist() == [[0, 0, 0], [2, 3, 0]]
    shares[1, 2] = np.nan
    assert beam_search(shares, 3)[1].tolist() == [2, 0, 0]


# --- models ---------------------------------------------------------------------------------------

SECTIONS = {
    "speech_rnn": {"features": 4, "num_layers": 1, "strides": (2,)},
    "conformer": {"features": 8, "num_heads": 2, "num_layers": 1, "kernel_size": 3,
                  "strides": (2,)},
}  # fmt: skip


@pytest.mark.parametrize("name", ["speech_rnn", pytest.param("conformer", marks=pytest.mark.slow)])
def test_padding_is_blank_and_changes_nothing(name):
    model = make_model({"name": name, **SECTIONS[name]}, 5, positions=1)
    x = jnp.asarray(RNG.normal(size=(2, 7, 3)), jnp.float32)
    x = x.at[1, 5:].set(-2.0)
    silence = jnp.broadcast_to(jnp.array([1.5, -2.0])[:, None, None], (2, 4, 3))
    longer = jnp.concatenate([x, silence], axis=1)
    shapes, state = jax.eval_shape(model.init, jax.random.key(0), x, {})
    params = jax.tree.map(
        lambda leaf: jnp.asarray(RNG.normal(0, 0.5, leaf.shape), leaf.dtype), shapes
    )
    apply = jax.jit(lambda x: model.apply(params, state, x, {}, key=None, train=False)[0])
    outputs, padded = apply(x), apply(longer)
    assert outputs.shape == (2, 4, 5) and padded.shape == (2, 6, 5)
    np.testing.assert_allclose(padded[:, :4], outputs, atol=2e-5)
    for row, end in ((0, 4), (1, 3)):
        shares = jax.nn.softmax(padded[row, end:])
        assert bool((shares[:, 0] == 1).all()) and not shares[:, 1:].any()
    still = apply(jnp.zeros((1, 7, 3)))
    assert bool((still.argmax(-1) == 0).all()) and bool(jnp.isfinite(still).all())


def test_frames_that_are_equal_to_the_last_are_padding():
    x = jnp.array([[[1.0], [2.0], [2.0]], [[1.0], [2.0], [3.0]], [[5.0], [5.0], [5.0]]])
    expected = [[True, False, False], [True, True, True], [False] * 3]
    assert real_frames(x).tolist() == expected


# --- findings and reports -------------------------------------------------------------------------


def test_findings_of_a_model_that_says_nothing_and_of_transcripts_out_of_reach():
    said = {"count": 100, "empty": 0.97, "blanks": 0.99, "unreachable": 3}
    record = {
        "run": {"status": "done"},
        "predictions": {"train": said, "validation": {**said, "unreachable": 0}},
    }
    found = {one.name: one for one in find(record)}
    assert found["only_blanks"].level == "serious" and found["only_blanks"].techniques
    assert found["unreachable_transcripts"].numbers == {"count": 3, "of": 200}
    assert "finer_steps" in found["unreachable_transcripts"].techniques
    fine = {"count": 100, "empty": 0.0, "blanks": 0.7, "unreachable": 0}
    assert not find({"run": {"status": "done"}, "predictions": {"train": fine}})


# --- every verb -----------------------------------------------------------------------------------


def config(folder):
    """Returns a config of made digits, whose transcripts hold markup; and a folder of sounds."""
    waves, texts = spoken(0, 72)
    lines = []
    for number, (wave, text) in enumerate(zip(waves, texts)):
        wavfile.write(folder / f"{number}.wav", RATE, wave[: np.flatnonzero(wave)[-1] + 1])
        split = "train" if number < 48 else "validation" if number < 60 else "test"
        text = text.replace("7", "<b>")
        lines.append(json.dumps({"path": f"{number}.wav", "text": text, "split": split}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    made = {
        "data": {
            "source": str(folder / "manifest.jsonl"),
            "task": "transcription",
            "batch_size": 8,
            "preprocess": {"audio": "log_mel", "n_fft": 128, "hop": 64, "num_mels": 12},
            "augment": {"spec_time_mask": 0.05},
            "beam_width": 3,
        },
        "model": {"name": "speech_rnn", "features": 16, "num_layers": 1, "strides": (2,)},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "mesh": {"data": 1},
        "train": {"epochs": 3, "tensorboard": False},
    }
    return made, folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training."""
    folder = tmp_path_factory.mktemp("digits")
    made, _ = config(folder)
    (folder / "config.py").write_text(f"def get_config():\n    return {made!r}\n")
    words = ["train", f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    assert main([*words, "--json"]) == 0
    return folder


@pytest.mark.slow
def test_a_run_is_measured_predicts_and_reports_texts(run, capsys):
    found = json.loads((run / "run" / "result.json").read_text())
    assert found["best"]["metric"] == "validation/wer"
    assert {"test/wer", "test/cer", "train/blanks"} <= set(found["metrics"])
    capsys.readouterr()
    assert main(["predict", f"--workdir={run / 'run'}", f"--input={run}", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "prediction" in str(rows)
    words = [f"--workdir={run / 'run'}", "--beam-width=8"]
    assert main(["predict", *words, f"--input={run}", "--json"]) == 0
    assert main(["eval", *words]) == 2
    assert "are of the likeliest class of each step" in capsys.readouterr().err
    assert main(["report", str(run / "run")]) == 0
    page = (run / "run" / "report.html").read_text()
    assert "word error rate" in page and "&lt;b&gt;" in page and "<del>" in page


def test_a_beam_is_asked_for_when_predicting(tmp_path):
    made, _ = config(tmp_path)
    experiment = Experiment.build(made)
    assert serve.deciding(experiment, None, None, 8).spec.beam_width == 8
    assert serve.deciding(experiment, None, None).spec.beam_width == 3
    with pytest.raises(UserError, match="this is a transcription run"):
        serve.deciding(experiment, None, None, 8, 0.5)
    with pytest.raises(UserError, match="likeliest class of each step"):
        serve.deciding(experiment, None, None, 8, measured=True)


@pytest.mark.slow
def test_a_model_with_too_few_steps_is_refused_before_it_is_trained(run, capsys):
    words = [f"--config={run / 'config.py'}", f"--workdir={run / 'other'}"]
    assert main(["train", *words, "--config.model.strides=(4,4)"]) == 2
    said = capsys.readouterr().err
    assert "transcripts need more steps" in said and "manifest.jsonl, row" in said
