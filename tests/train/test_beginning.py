"""Runs that start from another run: what is taken, what is new, what is kept, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jdlopt import config as configs
from jdlopt.data import kept_scaling, preprocess
from jdlopt.data.notes import Note
from jdlopt.errors import ConfigError
from jdlopt.models import pretrained
from jdlopt.report import samples
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.trial import Trial
from jdlopt.train import beginning, serve, start
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.run import open_run

CITIES = ("Bern", "Oslo", "Rome")
CLASSES = ("ant", "bee", "cat")


def table(path: Path, classes: tuple[str, ...] = CLASSES, cities: tuple[str, ...] = CITIES,
          unit: float = 1.0) -> str:  # fmt: skip
    """Writes a table of two numbers, a city and a class; numbers in another unit."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["height", "weight", "city", "label"])
        for row in range(60):
            label = row % len(classes)
            point = (rng.normal(size=2) * unit + label).round(4)
            writer.writerow([*point, cities[(row // 2) % len(cities)], classes[label]])
    return str(path)


def config_of(source: str, **changes: Any) -> dict[str, Any]:
    """A config of a small perceptron with batch norm and embedded categories."""
    base: dict[str, Any] = {
        "data": {
            "source": source, "target": "label", "batch_size": 16,
            "preprocess": {"scale": "standard", "encode": "embedding"},
        },
        "model": {"name": "mlp", "features": (8, 4), "batch_norm": True},
        "optim": {"name": "adam", "learning_rate": 0.01},
        "train": {
            "steps": 2, "tensorboard": False, "evaluate_test": False, "steps_per_dispatch": 1
        },
    }  # fmt: skip
    plain = {key.replace("__", "."): value for key, value in changes.items()}
    return configs.to_dict(configs.override(base, plain))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three classes, and tables of others."""
    place = tmp_path_factory.mktemp("place")
    fit(config_of(table(place / "first.csv")), place / "run")
    table(place / "other.csv", ("dog", "eel"), ("Oslo", "Rome"), unit=5.0)
    table(place / "mixed.csv", CLASSES, ("Rome", "Nice", "Oslo"))
    return place


def begun(place: Path, source: str = "other.csv", **changes: Any) -> Experiment:
    """The experiment of a config that starts from the run, its model taken from there."""
    raw = config_of(str(place / source), **{"model__pretrained": str(place / "run"), **changes})
    for key in ("features", "batch_norm"):
        if f"model__{key}" not in changes:
            del raw["model"][key]
    return Experiment.build(raw, check=False)


def weights(run: Path) -> dict[str, np.ndarray]:
    """What a run's best checkpoint predicts with, by path."""
    found = open_run(run).weights
    return {path: np.asarray(leaf) for path, leaf in pretrained._flat(found.params).items()}


# --- what is taken --------------------------------------------------------------------------------


def test_the_same_task_starts_where_the_run_ended(place: Path) -> None:
    made = begun(place, "first.csv")
    assert made.config.model.options["features"] == (8, 4)  # the run's, as none is given
    found = made.pretrained()
    assert found is not None and not found.record["new"]
    state = made.init(0, start=(found.params, found.state))
    old = open_run(place / "run").weights
    for one, other in ((state.params, old.params), (state.model_state, old.model_state)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    jax.tree.map(np.testing.assert_array_equal, state.preprocess, old.preprocess)


def test_other_classes_have_a_new_head_and_norms_and_scaling_come_along(place: Path) -> None:
    made = begun(place)
    found = made.pretrained()
    assert found is not None
    assert found.record["new"] == ["model/head/outputs/bias", "model/head/outputs/kernel"]
    said = pretrained.in_words(found.record)
    assert "are 2 classes here and 3 classes there" in said and "model/head/outputs/bias" in said
    assert found.record["tensors"] == len(found.params) + len(found.state) > 0
    old = weights(place / "run")
    for path, array in found.params.items():
        np.testing.assert_array_equal(array, old[path])
    assert any(path.endswith("mean") for path in found.state)
    saved = json.loads((place / "run/inputs.json").read_text())
    learnt = np.asarray(made.learnt["scale"]["scale"])
    np.testing.assert_allclose(learnt, saved["preprocess"]["scale"]["scale"], rtol=1e-6)
    kept = [note for note in made.data.notes if note.kind == "kept"]
    assert len(kept) == 1 and "scaling, categories" in kept[0].what
    assert "data.fit_on='train'" in kept[0].remedy


def test_classes_of_other_names_are_other_outputs(place: Path, tmp_path: Path) -> None:
    table(tmp_path / "renamed.csv", ("cow", "dog", "eel"))
    found = begun(tmp_path, str(tmp_path / "renamed.csv"),
                  model__pretrained=str(place / "run")).pretrained()  # fmt: skip
    assert found is not None and len(found.record["new"]) == 2
    assert "other classes (cow, dog, eel here, ant, bee, cat there)" in found.record["why_new"]


def test_categories_keep_the_numbers_that_the_embedding_was_learnt_with(place: Path) -> None:
    made = begun(place, "mixed.csv")
    assert made.spec.input.categories == {"city": CITIES}
    unseen = [note for note in made.data.notes if note.kind == "unseen"]
    assert any("Nice" in str(note) for note in unseen)
    anew = begun(place, "other.csv", data__fit_on="train")
    assert anew.spec.input.categories == {"city": ("Oslo", "Rome")}
    assert not [note for note in anew.data.notes if note.kind == "kept"]


def test_examples_are_shown_as_the_run_scaled_them(place: Path) -> None:
    made = begun(place)
    (shown,) = samples.take(made.config.data)
    raw, prepared = (
        next(one.values for one in shown.columns if one.label == label)
        for label in ("raw", "preprocessed")
    )
    expected = preprocess.apply(made.recipe, made.learnt, raw)
    np.testing.assert_allclose(prepared, expected, rtol=1e-5)


def test_other_preprocessing_is_learnt_anew_and_said(place: Path) -> None:
    made = begun(place, **{"data__preprocess.scale": "minmax"})
    notes = [str(note) for note in made.data.notes if "learnt anew" in note.what]
    assert notes and "data.preprocess.scale is 'minmax' here, 'standard' there" in notes[0]


def test_scaling_that_lies_far_from_these_data_is_counted(place: Path, tmp_path: Path) -> None:
    lines = (place / "other.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for name, change in (("far", lambda x: 1000 * x + 5000), ("close", lambda x: x / 1e4)):
        moved = [[row[0], str(change(float(row[1]))), *row[2:]] for row in rows]
        text = "\n".join([lines[0], *map(",".join, moved)])
        (tmp_path / f"{name}.csv").write_text(f"{text}\n")
        [note] = _apart(begun(place, str(tmp_path / f"{name}.csv")))
        assert note.count == 1 and "'weight'" in note.places[0] and "data.fit_on" in note.remedy
    assert not _apart(begun(place)) and not _apart(begun(place, "first.csv"))
    anew = begun(place, str(tmp_path / "far.csv"), data__fit_on="train")
    assert not _apart(anew)


def _apart(experiment: Experiment) -> list[Note]:
    return [note for note in experiment.data.notes if note.what == kept_scaling.WHAT]


def test_notes_and_weights_are_told_once_of_all_that_are_compared(place: Path, capsys) -> None:
    first, wider = begun(place), begun(place, optim__learning_rate=0.1)
    plain = Experiment.build(config_of(str(place / "other.csv")), check=False)
    unfit = begun(place, model__features=(9, 4))
    start.say([first, wider, plain, unfit])
    told = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("model.pretrained: ") for line in told) == 1
    assert len(set(told)) == len(told) and any(line.startswith("data: kept: ") for line in told)
    with pytest.raises(ConfigError, match="does not fit"):
        start.say([unfit])


def test_a_population_starts_from_them(place: Path) -> None:
    raw = config_of(str(place / "other.csv"), model__pretrained=str(place / "run"))
    (shared,) = structure.build(raw)
    trials = [Trial(0, 0, None, {}), Trial(1, 5, None, {"optim.learning_rate": 1e-7})]
    made = Population(shared, trials, width=2, execution_mode="scan", cache=Cache())
    kernel = made.states.params["model"]["head"]["dense_0"]["kernel"]
    old = weights(place / "run")["model/head/dense_0/kernel"]
    np.testing.assert_array_equal(kernel, np.stack([old] * 2))


ENCODER = {"name": "transformer_encoder", "features": 8, "num_layers": 2, "num_heads": 2}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scanned from unrolled": (ENCODER, {"scan_layers": True}),
    "unrolled from scanned": ({**ENCODER, "scan_layers": True}, {"scan_layers": False}),
    "adapters from none": (ENCODER, {"lora_rank": 2}),
    "none from adapters": ({**ENCODER, "lora_rank": 2, "lora_alpha": 3.0}, {"lora_alpha": None,
                                                                         "lora_rank": None}),
    "an NNX module": ({"name": "tests.models.own_modules:NnxNet", "inputs": 4}, {}),
    "a Linen module without a head": ({"name": "tests.models.own_modules:LinenNet"}, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] * ("Linen" not in name)) for name in MODELS],
)
def test_any_model_predicts_as_the_run_did(case: str, tmp_path: Path) -> None:
    """With the same outputs, the first prediction is the run's last; with others, they are new."""
    section, changes = MODELS[case]
    data = {"source": "iris", "batch_size": 16}
    old = {**config_of("iris"), "data": data, "model": section}
    fit(old, tmp_path / "run")
    model = {**section, "pretrained": str(tmp_path / "run"), **changes}
    made = Experiment.build({**old, "model": model}, check=False)
    found = made.pretrained()
    assert found is not None
    assert all(path.startswith("adapters/") for path in found.record["new"])
    inputs = made.data.read("validation").inputs
    state = made.init(7, start=(found.params, found.state))
    before = open_run(tmp_path / "run", allow_code=True)
    expected = before.experiment.predict(before.weights, inputs).outputs
    np.testing.assert_allclose(made.predict(state, inputs).outputs, expected, atol=2e-5)
    wider = replace(made.data, spec=replace(made.spec, class_names=tuple("abcd")))
    other = Experiment.build({**old, "model": model}, wider).pretrained()
    assert other is not None
    new = [path for path in other.record["new"] if not path.startswith("adapters/")]
    assert len(new) == 2 and {path.rpartition("/")[2] for path in new} == {"kernel", "bias"}


# --- what is refused ------------------------------------------------------------------------------

UNFIT = {
    "a width": ({"model__features": (16, 4)}, "set model.features=(8, 4)"),
    "a depth": ({"model__features": (8,)}, "set model.features=(8, 4)"),
    "no norm": ({"model__batch_norm": False}, "set model.batch_norm=True"),
    "another model": ({"model__name": "linear"}, "Set model.name='mlp'"),
    "another coding": ({"data__preprocess.encode": "one_hot"}, "data.preprocess.encode is"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_names_the_key(place: Path, case: str) -> None:
    changes, told = UNFIT[case]
    with pytest.raises(ConfigError) as error:
        begun(place, **changes).pretrained()
    assert told in str(error.value) and str(error.value).startswith("model.pretrained: ")


def test_places_that_hold_no_weights(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "study/trials/0003")
    for name, told in {"study": "name one of them, such as .*0003", "": "it is no run's dir",
                       "stud": "there is no .* Did you mean 'study'"}.items():  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            begun(
                place, model__pretrained=str(tmp_path / name), model__features=(8, 4)
            ).pretrained()
    shutil.copytree(place / "run", tmp_path / "half")
    shutil.rmtree(tmp_path / "half/checkpoints")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        begun(place, model__pretrained=str(tmp_path / "half")).pretrained()


def test_no_code_that_a_run_names_is_imported(place: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["model"]["name"] = "harm_of_a_run:Net"
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    (tmp_path / "harm_of_a_run.py").write_text("open('HARM', 'w')")
    monkeypatch.chdir(tmp_path)
    made = begun(place, model__pretrained="run", model__features=(8, 4), model__batch_norm=True)
    assert made.pretrained() is not None
    assert not (tmp_path / "HARM").exists()


# --- going on -------------------------------------------------------------------------------------


def test_a_run_goes_on_and_is_used_without_the_one_before(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "old")
    raw = config_of(str(place / "other.csv"), model__pretrained=str(tmp_path / "old"))
    del raw["model"]["features"], raw["model"]["batch_norm"]
    fit(raw, tmp_path / "new")
    record = json.loads((tmp_path / "new/result.json").read_text())["pretrained"]
    assert record["file"] == str(tmp_path / "old") and len(record["new"]) == 2
    before = serve.evaluate_run(tmp_path / "new")["metrics"]
    shutil.rmtree(tmp_path / "old")
    assert serve.evaluate_run(tmp_path / "new")["metrics"] == before
    assert open_run(tmp_path / "new").predict(place / "first.csv").labels is not None
    (tmp_path / "new/result.json").unlink()
    longer = configs.to_dict(configs.override(raw, {"train.steps": 4}))
    with pytest.warns(UserWarning, match="goes on from step 2 to 4"):
        again = fit(longer, tmp_path / "new")
    assert again.record["steps"] == 4
    assert again.record["pretrained"] == record
    saved = json.loads((tmp_path / "new/config.json").read_text())
    assert saved["data"]["fit_on"] == str(tmp_path / "old")


def test_weights_of_a_run_are_found_beside_the_config(place: Path, monkeypatch, tmp_path) -> None:
    file = place / "next.json"
    file.write_text(json.dumps(config_of("first.csv", model__pretrained="./run")))
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="taken from beside the config"):
        raw = configs.load(file)
    assert Path(raw.model.pretrained) == place / "run"


def test_a_checkpoint_of_a_run_can_be_named(place: Path) -> None:
    steps = sorted((place / "run/checkpoints").glob("step-*"))
    found = begun(place, model__pretrained=str(steps[-1])).pretrained()
    assert found is not None and found.record["checkpoint"] == steps[-1].name
    assert beginning.read(str(steps[-1])).checkpoint == steps[-1]
