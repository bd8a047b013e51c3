"""Each finding fires on a record that shows it, and not on one that doesn't."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data.check.labels import label_noise
from jdlopt.evidence import techniques
from jdlopt.evidence.findings import CAUSES, FINDINGS, LEVELS, Finding, find
from jdlopt.evidence.findings.cures import CURES, opposite, ruled_out
from jdlopt.evidence.sides import side_of
from jdlopt.evidence.techniques import TECHNIQUES

STEPS = list(range(10, 210, 10))


def a_curve(values: Any) -> dict[str, list[float]]:
    return {"steps": STEPS, "values": [float(value) for value in values]}


def said(accuracy: float, count: int, ece: float = 0.01) -> dict[str, Any]:
    recall = [accuracy] * 3
    each = count // 3
    matrix = np.full((3, 3), round((1 - accuracy) * each / 2))
    np.fill_diagonal(matrix, round(accuracy * each))
    calibration = {"ece": ece, "chance": 0.03, "confidence": accuracy, "accuracy": accuracy}
    return {
        "count": count,
        "accuracy": accuracy,
        "loss": 1 - accuracy,
        "recall": recall,
        "counts": [each] * 3,
        "confusion": matrix.tolist(),
        "calibration": {**calibration, "bins": []},
    }


def a_layer(name: str, **changes: Any) -> dict[str, Any]:
    row = {"layer": name, "kind": "relu", "units": 64, "dead": 0.0, "saturated": None}
    return {**row, "rms_before": 1.0, "rms_after": 0.8, "rank": 20.0, **changes}


def a_gradient(name: str, relative: float = 0.3, gain: float = 1.4) -> dict[str, Any]:
    return {"name": name, "gradient": 3 * relative, "parameter": 3.0, "relative": relative,
            "gain": gain}  # fmt: skip


def a_look(scale: float | None = 200.0) -> dict[str, Any]:
    layers = [a_gradient(f"dense_{i}/kernel") for i in range(4)]
    noise = {"gradient_square": 1.0, "trace": scale, "scale": scale}
    return {"loss": 1.2, "norm": 2.0, "layers": layers, "noise": noise, "batches": 8}


@pytest.fixture
def sound() -> dict[str, Any]:
    """A record of a run with which nothing is wrong."""
    validation = 0.1 + np.exp(-np.arange(1, 21) / 1.5)
    return {
        "config": {"train": {"eval_every": None}},
        "run": {
            "status": "done", "steps": 200, "total_steps": 200, "batch_size": 100,
            "task": "classification", "classes": ["a", "b", "c"], "counts": [500, 500, 500],
            "train_size": 1500, "validation_size": 1500, "trivial_loss": 1.1, "diverged": None,
        },
        "curves": {
            "train/loss": a_curve(validation - 0.05),
            "validation/loss": a_curve(validation - np.arange(20) * 1e-3),
        },
        "gradients": {"start": a_look(), "checkpoint": a_look(900.0)},
        "layers": {
            place: [a_layer("dense_0"), a_layer("dense_1"), a_layer("dense_2")]
            for place in ("start", "checkpoint")
        },
        "predictions": {"train": said(0.97, 1500), "validation": said(0.95, 1500)},
        "pruned": [{"share": s, "loss": 0.1 + s, "accuracy": 0.95 - s} for s in (0.0, 0.5, 0.9)],
        "inputs": {"input": {"rms": 1.0, "largest": 1.2, "smallest": 0.8}},
        "data": {"giveaways": []},
        "splits": {
            "inputs": {"area": 0.51, "error": 0.01, "z": 1.0},
            "labels": {"p": 0.9, "distance": 0.01},
            "columns": [],
        },
        "reference": {"name": "random forest", "score": 0.94},
        "rates": {
            "rate": 3e-3, "best_rate": 2e-2, "suggested": 2e-3, "diverges": 0.5, "start": 1.1,
            "lowest": 0.5, "steepest": 1e-3, "rates": [1e-3, 1e-2], "losses": [1.0, 0.5],
        },
        "speed": {"waiting": 0.0, "seconds_a_step": 1.5e-3, "bare_step": 1e-3},
        "precision": {"dtype": "float32", "skipped": 0.0, "skipped_share": None, "diverged": False},
    }  # fmt: skip


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(record)
    *sections, key = path.split(".")
    node = made
    for section in sections:
        node = node[section]
    node[key] = value
    return made


def test_nothing_is_found_in_a_sound_run(sound):
    assert find(sound) == []


def test_nothing_is_found_where_nothing_is_known():
    assert find({"run": {"status": "running"}}) == []


NEAR_DUPLICATES = {"count": 400, "of": 1500, "severity": "warning", "text": "", "config": "",
         "numbers": {"equal": 0, "agreement": 0.95, "surest": 0.8},
         "parts": [{"name": "validation like train", "count": 400, "detail": ""}]}  # fmt: skip
NOISE = {**NEAR_DUPLICATES, "count": 300, "parts": [{"name": "a → b", "count": 300, "detail": ""}]}
WORSE = a_curve([1.0, 0.6, 0.4, *np.linspace(0.4, 1.0, 17)])
SLOW = a_curve(np.linspace(1.08, 0.7, 20))
EARLY = a_curve([0.3, 0.1, *[0.1] * 18])
JUMPS = a_curve([0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.8, *[0.5] * 7])
DEAD = [a_layer("dense_0"), a_layer("dense_1", dead=0.7), a_layer("dense_2")]
FLAT = [a_layer("dense_0", kind="tanh", dead=None, saturated=0.8)] * 3
WEAK = {**said(0.9, 1500), "recall": [0.98, 0.98, 0.7], "counts": [500, 500, 500]}

TARGET = {"rms": 1.0, "mean": 0.5, "spread": 0.8, "scale": None}

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("target_leak", {"data.giveaways": [{"name": "x", "score": 0.995}]}, "serious"),
    ("target_leak", {"data.leaks": {**NOISE, "count": 1}}, "serious"),
    ("target_leak", {"data.group_leak": {**NOISE, "count": 1}}, "serious"),
    ("split_leak", {"data.near_duplicates": NEAR_DUPLICATES}, "serious"),
    ("label_errors", {"data.label_noise": NOISE}, "serious"),
    ("shift", {"splits.inputs": {"area": 0.9, "error": 0.01, "z": 40.0}}, "serious"),
    ("shift", {"splits.labels": {"p": 1e-9, "distance": 0.2}}, "warning"),
    ("class_imbalance", {"run.counts": [900, 590, 10]}, "serious"),
    ("input_scale", {"inputs.input.rms": 700.0}, "serious"),
    ("input_scale", {"inputs.input.rms": 0.05}, "warning"),
    ("target_scale", {"run.target": {**TARGET, "rms": 2.5e5}}, "serious"),
    ("target_scale", {"run.target": {**TARGET, "rms": 0.05}}, "warning"),
    ("target_scale", {
        "run.target": {**TARGET, "rms": 2.5e5}, "predictions.train": {"r2": 0.4},
    }, "warning"),
    ("layer_scale", {"gradients.start.layers": [
        a_gradient("a/kernel"), a_gradient("b/kernel", gain=140.0), a_gradient("c/kernel")
    ]}, "serious"),
    ("layer_scale", {"layers.start": [
        a_layer("a"), a_layer("b", rms_before=80.0, rms_after=50.0), a_layer("c", rms_before=40.0)
    ]}, "serious"),
    ("exploding_gradients", {"gradients.start.layers": [
        a_gradient("a", 500.0), a_gradient("b", 300.0), a_gradient("c", 200.0)
    ]}, "serious"),
    ("vanishing_gradients", {f"gradients.{place}.layers": [
        a_gradient("a", 1e-6), a_gradient("b", 0.2), a_gradient("c", 0.3)
    ] for place in ("start", "checkpoint")}, "serious"),
    ("dead_units", {"layers.start": DEAD, "layers.checkpoint": DEAD}, "serious"),
    ("dying_units", {"layers.checkpoint": DEAD}, "serious"),
    ("saturated_units", {"layers.start": FLAT, "layers.checkpoint": FLAT}, "serious"),
    ("saturating_units", {"layers.checkpoint": FLAT, "layers.start": [
        a_layer("dense_0", kind="tanh", dead=None, saturated=0.05)
    ] * 3}, "serious"),
    ("precision_overflow", {"precision": {
        "dtype": "float16", "skipped": 80.0, "skipped_share": 0.2, "diverged": False
    }}, "serious"),
    ("learning_rate_too_high", {"rates.rate": 0.1}, "serious"),
    ("learning_rate_too_high", {"rates.rate": 0.03}, "warning"),
    ("learning_rate_too_low", {"rates.rate": 3e-5, "curves.train/loss": a_curve([1.0] * 20)},
     "serious"),
    ("noisy_gradients", {"run.batch_size": 4}, "serious"),
    ("batch_too_large", {"run.batch_size": 20000}, "note"),
    ("divergence", {"run.status": "diverged", "run.diverged": {"step": 7, "quantity": "the loss"}},
     "serious"),
    ("loss_spikes", {"curves.train/loss": JUMPS}, "warning"),
    (
        "unreachable_transcripts",
        {"predictions.train": {"count": 1500, "empty": 0.0, "blanks": 0.7, "unreachable": 3}},
        "warning",
    ),
    (
        "only_blanks",
        {"predictions.train": {"count": 1500, "empty": 0.97, "blanks": 0.99, "unreachable": 0}},
        "serious",
    ),
    ("heavy_tails", {"predictions.train": {"count": 1500, "r2": 0.9, "tail": 0.7}}, "warning"),
    ("overfitting", {"curves.validation/loss": WORSE}, "serious"),
    ("overfitting", {"predictions.validation": said(0.6, 1500)}, "serious"),
    ("underfitting", {"predictions.train": said(0.6, 1500), "predictions.validation": said(0.6,
     1500)}, "serious"),
    ("over_regularised", {
        "config": {"model": {"dropout_rate": 0.3}}, "curves.train/loss": a_curve([0.3] * 20),
        "predictions.train": {**said(0.97, 1500), "loss": 0.2},
        "predictions.validation": {**said(0.97, 1500), "loss": 0.2},
    }, "warning"),
    ("still_improving", {"curves.validation/loss": SLOW}, "serious"),
    ("saturated_early", {"curves.validation/loss": EARLY}, "note"),
    ("miscalibration", {"predictions.validation": said(0.95, 1500, ece=0.1)}, "warning"),
    ("weak_classes", {"predictions": {"train": said(0.95, 1500), "validation": WEAK}}, "note"),
    ("noisy_validation", {"run.validation_size": 30}, "note"),
    ("unused_capacity", {"pruned": [
        {"share": s, "loss": 0.1, "accuracy": 0.95} for s in (0.0, 0.5, 0.9)
    ]}, "note"),
    ("input_bound", {"speed.waiting": 0.8}, "serious"),
    ("dispatch_bound", {"speed.seconds_a_step": 0.1}, "serious"),
    ("padding", {"inputs": {"input": {"padding": 0.9}}}, "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "level"), CASES)
def test_a_finding_fires(sound, name, changes, level):
    record = sound
    for path, value in changes.items():
        record = changed(record, path, value)
    found = FINDINGS[name](record)
    assert isinstance(found, Finding)
    assert (found.name, found.level) == (name, level)
    assert found.text.endswith(".") and found.suggestion
    # the planted fault is what is said first
    assert find(record)[0].name == name


def test_findings_of_labels_suggest_what_labels_can_have(sound):
    said = {"count": 1500, "finite": 1.0, "loss": 0.2, "found": 0.9}
    said |= {"recall": [0.98, 0.98, 0.7], "counts": [500, 500, 500]}
    record = changed(sound, "run", {**sound["run"], "unit": "label", "task": "multilabel"})
    record = changed(record, "predictions", {"train": said, "validation": said})
    [weak] = [one for one in find(record) if one.name == "weak_classes"]
    assert "Of all labels 90 % are recognised" in weak.text
    uneven = FINDINGS["class_imbalance"](changed(record, "run.counts", [900, 590, 10]))
    assert "The largest label" in uneven.text and "f1_macro" in uneven.suggestion
    assert weak.techniques == uneven.techniques == ("class_weights",)


def test_costs_cite_the_profile(sound):
    shares = {"device": 0.1, "dispatch": 0.2, "data": 0.6, "transfer": 0.1}
    speed = {**sound["speed"], "waiting": 0.8, "profile": shares}
    waits = FINDINGS["input_bound"](changed(sound, "speed", speed))
    assert "Of a profiled step 60 % waits for a batch and 10 % copies" in waits.text
    speed |= {"waiting": 0.0, "seconds_a_step": 0.1}
    slow = FINDINGS["dispatch_bound"](changed(sound, "speed", speed))
    assert "Of a profiled step 10 % computes and 20 % is Python's dispatch." in slow.text


def test_every_finding_has_a_case_and_a_place():
    assert {name for name, *_ in CASES} == set(FINDINGS) == set(CAUSES)


def test_suggested_techniques_have_a_direction_and_an_entry_in_the_catalogue(sound):
    assert set(CURES) <= set(TECHNIQUES)
    for name, changes, _ in CASES:
        record = sound
        for path, value in changes.items():
            record = changed(record, path, value)
        found = FINDINGS[name](record)
        assert set(found.techniques) <= set(CURES)
        assert set(found.words) <= set(found.techniques)
        for cure in found.techniques:  # a finding's own cures work for what it needs
            for quantity, sign in CURES[cure].turns.items():
                assert found.needs.get(quantity, sign) == sign, (name, cure)


CONFIGS: dict[str, dict[str, Any]] = {
    "tabular/iris_mlp": {
        "train.patience": 5, "loss.label_smoothing": 0.1, "model.dropout_rate": 0.5,
        "optim.clip_norm": 1.0, "data.preprocess.scale": "standard",
    },
    "tabular/diabetes_mlp": {"model.activation": "gelu", "optim.average.name": "ema"},
    "image/digits_cnn": {"data.augment.mixup": 0.2, "model.ensemble": 3},
    "sequence/mnist1d_gru": {"optim.weight_decay": 0.1},
}  # fmt: skip
"""Configs whose data and settings rule out most of what findings may suggest."""


@pytest.fixture(scope="module")
def settings():
    """Each config as a record has it, with what the catalogue says of it."""
    made = []
    for file, changes in CONFIGS.items():
        raw = configs.override(configs.load(f"configs/{file}.py"), {**changes, "mesh.data": 1})
        side = side_of(raw)
        facts = techniques.facts_of(side.config, side.dataset)
        made.append((side.config, facts, ruled_out(side.config, facts)))
    return made


def test_no_set_of_findings_suggests_what_is_there_or_contradicts_itself(sound, settings):
    draw = np.random.default_rng(0)
    for trial in range(300):
        config, facts, excluded = settings[trial % len(settings)]
        record = copy.deepcopy(sound)
        record |= {"config": configs.to_dict(config), "ruled_out": excluded}
        taken = set[str]()
        for place in draw.permutation(len(CASES))[: draw.integers(1, 9)]:
            sections = {path.partition(".")[0] for path in CASES[place][1]}
            if not sections.isdisjoint(taken):
                continue  # two records of the same layers, or of a table's scale and a text's
            taken |= sections & {"layers", "inputs"}
            for path, value in CASES[place][1].items():
                record = changed(record, path, value)
        findings = find(record)
        told = [cure for one in findings for cure in one.techniques]
        for cure in told:
            assert techniques.why_not(TECHNIQUES[cure], config, facts) is None, cure
        assert not [pair for pair in itertools.combinations(told, 2) if opposite(*pair)]
        for finding in findings:
            assert finding.suggestion.endswith("."), finding
            for cure in finding.techniques:
                words = finding.words.get(cure, CURES[cure].words)
                assert words in finding.suggestion
            tried = re.split(", | or ", finding.suggestion.partition("Try ")[2])
            for cure in set(CURES) - set(told):  # what is not suggested is not said either
                words = CURES[cure].words
                assert not [one for one in tried if one.removeprefix("more ").startswith(words)]
            for quantity, sign in finding.needs.items():
                first = next(one.needs[quantity] for one in findings if quantity in one.needs)
                acts = [CURES[cure].turns.get(quantity, 0) for cure in told]
                assert first == sign or sign not in acts, (finding.name, quantity)


def test_under_confidence_is_never_answered_with_what_lowers_confidence(sound, settings):
    config, _, excluded = settings[0]
    sound |= {"config": configs.to_dict(config), "ruled_out": excluded}
    sound["predictions"]["validation"] = said(0.95, 1500, ece=0.1)
    sound["predictions"]["validation"]["calibration"] |= {"confidence": 0.7, "accuracy": 0.95}
    sound["data"]["label_noise"] = NOISE
    found = {one.name: one for one in find(sound)}
    assert "underconfident" in found["miscalibration"].text
    assert found["miscalibration"].techniques == (
        "less_label_smoothing", "less_weight_decay", "longer_training"
    )  # fmt: skip
    for lowered in ("loss.label_smoothing, now 0.1", "optim.weight_decay, now 0.05"):
        assert lowered in found["miscalibration"].suggestion
    assert found["label_errors"].techniques == ()
    sound["predictions"]["validation"]["calibration"] |= {"confidence": 0.99, "accuracy": 0.9}
    again = {one.name: one for one in find(sound)}
    assert "more label smoothing" in again["miscalibration"].suggestion
    assert "train.patience" not in again["miscalibration"].suggestion  # it is set already


@pytest.mark.parametrize(("changes", "why"), [
    ({"config": {"model": {"dropout_rate": 0.0}}}, "there is no dropout"),
    ({"predictions.validation": {**said(0.9, 1500), "loss": 0.25}}, "it overfits"),
    ({"curves.train/loss": a_curve([0.21] * 20)}, "dropout costs little"),
    ({"config": {"model": {"dropout_rate": 0.3}, "loss": {"label_smoothing": 0.1}}},
     "a smoothed loss is no measure"),
])  # fmt: skip
def test_regularisation_is_too_much_only_where_it_costs_and_nothing_overfits(sound, changes, why):
    record = changed(sound, "config", {"model": {"dropout_rate": 0.3}})
    record = changed(record, "curves.train/loss", a_curve([0.3] * 20))
    record = changed(record, "predictions.train", {**said(0.97, 1500), "loss": 0.2})
    record = changed(record, "predictions.validation", {**said(0.97, 1500), "loss": 0.2})
    assert FINDINGS["over_regularised"](record) is not None
    for path, value in changes.items():
        record = changed(record, path, value)
    assert FINDINGS["over_regularised"](record) is None, why


def test_underfitting_takes_away_what_holds_the_fit_back_first(sound, settings):
    config, _, excluded = settings[0]  # dropout, smoothing, weight decay
    sound |= {"config": configs.to_dict(config), "ruled_out": excluded}
    sound["predictions"] = {split: said(0.6, 1500) for split in ("train", "validation")}
    [found] = [one for one in find(sound) if one.name == "underfitting"]
    assert found.techniques[:2] == ("less_dropout", "less_weight_decay")
    assert "less dropout (model.dropout_rate, now 0.5)" in found.suggestion
    assert "augmentation" not in found.suggestion  # there is none


@pytest.mark.parametrize(("apart", "wrong", "found"), [
    (1.2, 0.0, False),  # models agree with 69 % of the labels
    (1.6, 0.0, False),  # with 81 %, and doubt 8 %
    (2.5, 0.0, False),
    (3.5, 0.1, True),
    (3.5, 0.3, True),
])  # fmt: skip
def test_overlapping_classes_are_no_label_errors_however_weak_the_models_that_judge(
    apart, wrong, found
):
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 900)
    features = draw.normal(size=(900, 5)) + apart * np.eye(3, 5)[true]
    labels = np.where(draw.random(900) < wrong, draw.integers(0, 3, 900), true)
    told = label_noise(features, labels, np.arange(900), "abc", False)
    noise = {
        one.kind: {
            "count": one.count, "of": one.of, "numbers": one.numbers,
            "parts": [{"name": part.name} for part in one.parts],
        }
        for one in told
    }  # fmt: skip
    names = [one.name for one in find({"run": {"status": "done"}, "data": noise})]
    assert ("label_errors" in names) is found


def test_the_first_doubtful_examples_are_named(sound):
    sound["predictions"]["validation"] = said(0.8, 1500)
    first = [{"name": f"cats/{i}.png", "pair": "cat → dog", "place": i} for i in range(5)]
    sound["data"]["label_noise"] = {**NOISE, "examples": first}
    [told] = [one for one in find(sound) if one.name == "label_errors"]
    assert "Such as cats/0.png (cat → dog), cats/1.png (cat → dog)" in told.text


def test_the_page_names_every_finding():
    page = (Path(__file__).parents[2] / "docs/diagnose.md").read_text("utf-8")
    assert [name for name in CAUSES if f"`{name}`" not in page] == []


def test_a_worse_level_comes_first_and_then_the_cause():
    order = [Finding(name, level, "") for level in LEVELS for name in CAUSES[::-1]]
    order.sort(key=lambda one: -one.score)
    assert order[0].level == "serious" and order[0].name == CAUSES[0]
    assert order[-1].level == "good" and order[-1].name == CAUSES[-1]


def test_a_small_validation_split_alone_is_no_overfitting(sound):
    sound["predictions"]["validation"] = said(0.9, 15)
    assert FINDINGS["overfitting"](sound) is None


def test_a_low_rate_that_got_there_is_a_note_only(sound):
    sound["rates"]["rate"] = 3e-5
    assert FINDINGS["learning_rate_too_low"](sound).level == "note"


def test_gradients_that_vanish_at_the_start_alone_are_no_finding(sound):
    # a residual block whose last scale starts at 0 has no gradient in its first step
    sound["gradients"]["start"]["layers"] = [
        a_gradient("a", 0.0), a_gradient("b"), a_gradient("c")
    ]  # fmt: skip
    sound["gradients"]["checkpoint"]["layers"] = [
        a_gradient("a"), a_gradient("b"), a_gradient("c")
    ]  # fmt: skip
    assert FINDINGS["vanishing_gradients"](sound) is None


def test_gradients_that_vanish_at_the_start_cost_the_steps_of_a_plateau(sound):
    sound["gradients"]["start"]["layers"] = [
        a_gradient("a", 1e-6), a_gradient("b", 1e-5), a_gradient("c")
    ]  # fmt: skip
    sound["gradients"]["checkpoint"]["layers"] = [
        a_gradient("a"), a_gradient("b"), a_gradient("c")
    ]  # fmt: skip
    assert FINDINGS["vanishing_gradients"](sound) is None  # it learnt at once
    sound["curves"]["train/loss"] = a_curve([1.1] * 10 + [0.5] * 10)
    found = FINDINGS["vanishing_gradients"](sound)
    assert found.level == "serious" and found.numbers["layer"] == "a"
    assert 0.45 <= found.numbers["stalled"] <= 0.55 and "of the steps to learn" in found.text
    sound["gradients"]["start"]["layers"][0] = a_gradient("a", 0.0)  # behind a scale of 0
    assert FINDINGS["vanishing_gradients"](sound).numbers["layer"] == "b"


def test_losses_of_next_to_nothing_do_not_differ(sound):
    sound["rates"] |= {"rate": 1e-4, "lowest": 1e-7}
    sound["curves"]["train/loss"] = a_curve([1.0] * 10 + [1e-3] * 10)
    assert FINDINGS["learning_rate_too_low"](sound).level == "note"  # it got there all the same
    sound["rates"]["rate"] = 0.03
    assert FINDINGS["learning_rate_too_high"](sound).level == "warning"


def test_a_run_that_is_still_improving_is_no_proof_of_a_small_model(sound):
    sound["curves"]["validation/loss"] = a_curve([0.9, *np.linspace(0.7, 0.64, 19)])
    assert FINDINGS["still_improving"](sound).level == "warning"
    few = {"train": said(0.6, 1500), "validation": said(0.6, 1500)}
    sound["predictions"] = few
    assert [one.name for one in find(sound)][:2] == ["still_improving", "underfitting"]


def test_noise_of_batches_is_no_spike(sound):
    draw = np.random.default_rng(0)
    noisy = 0.5 * np.exp(0.3 * draw.normal(size=200))
    sound["curves"]["train/loss"] = {"steps": list(range(200)), "values": noisy.tolist()}
    assert FINDINGS["loss_spikes"](sound) is None
    noisy[100] = noisy[150] = 5.0
    sound["curves"]["train/loss"]["values"] = noisy.tolist()
    assert FINDINGS["loss_spikes"](sound).numbers["steps"] == [100, 150]


def test_common_near_duplicates_are_no_leak(sound):
    sound["data"]["near_duplicates"] = {**NEAR_DUPLICATES, "severity": "note"}
    assert FINDINGS["split_leak"](sound) is None


def test_underfitting_needs_something_simple_that_does_better(sound):
    sound["predictions"] = {"train": said(0.7, 1500), "validation": said(0.7, 1500)}
    sound["reference"]["score"] = 0.7
    assert FINDINGS["underfitting"](sound) is None


def test_regression_is_judged_by_r2(sound):
    sound["run"] |= {"classes": [], "counts": None, "task": "regression"}
    sound["predictions"] = {
        "train": {"count": 300, "loss": 1.0, "r2": 0.99, "mse": 0.01},
        "validation": {"count": 300, "loss": 1.0, "r2": 0.2, "mse": 0.8},
    }
    assert FINDINGS["overfitting"](sound).level == "serious"
    sound["predictions"]["train"] |= {"r2": 0.2, "mse": 0.8}
    sound["reference"]["score"] = 0.3
    assert FINDINGS["overfitting"](sound) is None
    assert FINDINGS["underfitting"](sound).level == "serious"
