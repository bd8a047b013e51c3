"""The report of a run: examples from its data where they can be had, curves in any case."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from outline import check
from sklearn import metrics as sk

from jdlopt import config as configs
from jdlopt.data import open_dataset, origin
from jdlopt.data.spec import DataSpec, InputSpec
from jdlopt.errors import ConfigError, DataError, WorkdirError
from jdlopt.profiling.record import Buffer, Line, Memory, Operation, Profile
from jdlopt.report import balance, examples, figures, page, predictions, run, worst, write_report
from jdlopt.report.outcome import Guesses, Outcome
from jdlopt.tasks import TASKS
from jdlopt.train.schema import resolve_data

HOSTILE = "</script><img src=x onerror=alert(1)>"


def outcome(shape, classes=0, count=60, names=None, outputs=None, features=None):
    draw = np.random.default_rng(0)
    names = names or [f"class {index}" for index in range(classes)]
    probabilities = draw.dirichlet(np.ones(classes), count) if classes else None
    targets = draw.integers(0, classes, count) if classes else draw.normal(size=count)
    if outputs:  # several labels, or several values
        size = (count, outputs)
        targets = draw.integers(0, 2, size) if classes else draw.normal(size=size)
    one = InputSpec(tuple(shape), "uint8", feature_names=features)
    task = "regression" if not classes else "multilabel" if outputs else "classification"
    spec = DataSpec(
        "made", "made", task, one, {}, class_names=tuple(names), target_shape=targets.shape[1:]
    )
    return Outcome(
        inputs=draw.integers(0, 255, (count, *shape)).astype(np.uint8),
        targets=targets,
        outputs=draw.normal(size=(count, max(1, classes, outputs or 0))),
        probabilities=probabilities,
        losses=draw.uniform(size=count),
        spec=spec,
    )


@pytest.fixture
def workdir(tmp_path):
    """A run's directory: config, log and result, no checkpoint."""
    config = {"data": {"source": HOSTILE}, "model": {"name": "mlp"}}
    sections = {name: {} for name in ("loss", "optim", "train", "mesh")}
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0, **config, **sections}))
    rows = [
        {"step": step, "epoch": step / 5, "train/loss": 1 / step, "train/grad_norm": 1.0,
         "validation/loss": None if step == 3 else 2 / step, "validation/accuracy": 0.5}
        for step in range(1, 30)
    ]  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    result = {
        "status": "done", "metrics": {"train/loss": 0.1, "test/accuracy": 0.9}, "steps": 29,
        "best": {"step": 20, "metric": "validation/loss", "value": 0.1}, "wall_seconds": 2.0,
        "n_params": 10, "versions": {"python": "3.11"},
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "splits.csv").write_text("split,row\ntrain,0\n")
    return tmp_path


def report(workdir, monkeypatch, found):
    def examine(*_):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(run, "examine", examine)
    return check(write_report(workdir).read_text("utf-8"))


def titles(made):
    return [words for level, words in made.headings if level == 2]


def test_classes_have_matrix_curves_and_pictures(workdir, monkeypatch):
    made = report(workdir, monkeypatch, outcome((8, 8, 1), 3, names=["a", HOSTILE, "c"]))
    assert {"confusions", "roc", "pr", "reliability", "curve-0"} <= set(made.plots())
    pictures = [attrs for tag, attrs in made.elements if tag == "img"]
    assert len(pictures) == worst.WORST
    assert "Classes" in titles(made) and "Always guessing" in made.words
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in pictures)
    assert any(HOSTILE in attrs["alt"] for attrs in pictures)
    assert HOSTILE in made.words and "splits.csv" in made.words
    # a figure's own text is markup too: there the name is escaped once more
    labels = made.plots()["confusions"]["layout"]["xaxis"]["ticktext"]
    assert len(labels) == 3 and not any("<" in label for label in labels)


def test_a_value_has_predictions_and_a_table(workdir, monkeypatch):
    made = report(workdir, monkeypatch, outcome((5,)))
    assert {"predicted-0", "residuals-0"} <= set(made.plots())
    assert "confusions" not in made.plots()
    assert "Examples with the largest loss" in titles(made)


def test_labels_have_a_curve_each_and_no_confusion_matrix(workdir, monkeypatch):
    made = report(workdir, monkeypatch, outcome((5,), 2, names=["a", HOSTILE], outputs=2))
    plots = made.plots()
    assert len([line for line in plots["roc"]["data"] if "name" in line]) == 2
    assert "reliability" in plots and "confusions" not in plots
    assert "Confusion matrix" not in titles(made) and HOSTILE in made.words


def test_several_values_have_a_figure_each(workdir, monkeypatch):
    plots = report(workdir, monkeypatch, outcome((5,), outputs=3)).plots()
    assert {f"{what}-{n}" for what in ("predicted", "residuals") for n in range(3)} <= set(plots)


def rows_of(found, task=None):
    if task is not None:
        found = found._replace(spec=dataclasses.replace(found.spec, task=task))
    table = predictions.shown(found)["each"]
    return {row[0]: row[1:] for row in table.rows}, table


def test_each_label_has_support_precision_recall_and_f1_as_scikit_learn():
    found = outcome((5,), 4, outputs=4)
    rows, table = rows_of(found)
    assert table.header == ["label", "support", "precision", "recall", "F1", "threshold"]
    guesses = found.probabilities > 0.5
    expected = sk.precision_recall_fscore_support(found.targets, guesses, zero_division=np.nan)
    for place in range(4):
        support, precision, (recall, interval), f1, threshold = rows[f"class {place}"]
        scores = [support, precision, recall, f1]
        low, high = map(float, interval.split(" to "))
        assert low <= recall <= high
        wanted = [expected[i][place] for i in (3, 0, 1, 2)]
        np.testing.assert_allclose(scores, wanted, rtol=1e-6)
        assert threshold == 0.5


def test_each_class_has_a_row_the_worst_first():
    found = outcome((5,), 3)
    rows, table = rows_of(found)
    f1 = [row[-1] for row in table.rows]
    assert table.header[-1] == "F1" and f1 == sorted(f1) and len(rows) == 3


def test_each_output_has_rmse_mae_and_r2_as_scikit_learn():
    found = outcome((5,), outputs=3)
    found.targets[:, 2] = 1.0  # always the same: R² is 0, as the metrics have it
    rows, _ = rows_of(found)
    for place in range(3):
        true, guess = found.targets[:, place], found.outputs[:, place]
        rmse, mae, r2 = rows[str(place)]
        assert rmse == pytest.approx(sk.root_mean_squared_error(true, guess))
        assert mae == pytest.approx(sk.mean_absolute_error(true, guess))
        assert r2 == pytest.approx(sk.r2_score(true, guess))
    assert rows["mean of all"][0] == pytest.approx(np.mean([rows[str(i)][0] for i in range(3)]))


def test_the_task_decides_what_is_shown_and_not_the_targets_shape(monkeypatch):
    """Numbers of a task that shows nothing have no figures, though they look like outputs."""
    ranks = dataclasses.replace(TASKS["regression"], name="ranks", shows=frozenset())
    monkeypatch.setitem(TASKS, "ranks", ranks)
    found = outcome((5,), outputs=3)
    found = found._replace(spec=dataclasses.replace(found.spec, task="ranks"))
    made = predictions.shown(found)
    assert made["values"] is None and made["each"] is None and len(made["worst"].table.rows) == 12


def test_texts_and_tables_are_shown_as_they_were_read(tmp_path):
    frame = pd.DataFrame(
        {
            **{f"c{i}": range(60) for i in range(39)},
            "colour": ["red", "blue"] * 30,
            "note": [f"a note of some words about item {i}" for i in range(60)],
            "y": [0, 1] * 30,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    fields = resolve_data({"data": {"source": str(tmp_path / "t.csv"), "target": "y"}})
    dataset = open_dataset(fields)
    arrays = dataset.read("validation")
    count = len(arrays.targets)
    found = Outcome(
        arrays.inputs, arrays.targets, np.zeros((count, 2)), np.full((count, 2), 0.5),
        np.arange(count, dtype=float), dataset.spec, origin.names(dataset, "validation"),
    )  # fmt: skip
    pictures, table = worst.worst(found)["worst"]
    assert not pictures  # 39 columns are no curve
    assert table.header[4:7] == ["c0", "c1", "c2"] and table.header[-1] == "note"
    assert "8 of 40 columns" in table.caption
    row = table.rows[0]
    assert row[0] == f"row {row[4]}" and f"about item {row[4]}" in row[-1]
    narrow = open_dataset(dataclasses.replace(fields, ignore=tuple(f"c{i}" for i in range(35))))
    shown = worst.worst(found._replace(inputs=narrow.read("validation").inputs, spec=narrow.spec))
    table = shown["worst"].table
    place = table.header.index("colour")
    assert {row[place] for row in table.rows} <= {"red", "blue"}


def test_two_classes_have_one_curve(workdir, monkeypatch):
    plots = report(workdir, monkeypatch, outcome((5,), 2)).plots()
    assert len([line for line in plots["roc"]["data"] if "name" in line]) == 1


@pytest.mark.slow
def test_hundreds_of_classes_stay_under_the_limit(workdir, monkeypatch):
    made = report(workdir, monkeypatch, outcome((512, 512, 3), 300, count=900))
    assert "confusions" not in made.plots()  # told in a table
    assert "Most frequent confusions" in made.words
    lines = [line for line in made.plots()["roc"]["data"] if "name" in line]
    assert len(lines) == predictions.CURVE_CLASSES


@pytest.mark.parametrize("error", [DataError("the file is gone"), ConfigError("no part")])
def test_without_its_data_a_run_still_has_its_curves(workdir, monkeypatch, error):
    made = report(workdir, monkeypatch, error)
    assert str(error) in made.words
    assert {"curve-0", "curve-1"} <= set(made.plots())
    assert titles(made)[:3] == ["Training curves", "Metrics", "Next steps"]


def test_a_run_that_has_not_ended_or_logged_anything_has_a_report(workdir, monkeypatch):
    (workdir / "result.json").unlink()
    made = report(workdir, monkeypatch, DataError("x"))
    assert "not ended yet" in made.words and "curve-0" in made.plots()
    (workdir / "metrics.jsonl").unlink()
    assert "No step has been logged yet" in report(workdir, monkeypatch, DataError("x")).words


def test_the_best_step_is_marked_in_every_curve(workdir, monkeypatch):
    made = report(workdir, monkeypatch, DataError("x"))
    curves = [plot for name, plot in made.plots().items() if name.startswith("curve-")]
    assert curves and all(one["layout"]["shapes"][0]["x0"] == 20 for one in curves)
    assert "dotted: the best, 20" in made.words


def test_a_diverged_run_says_where(workdir, monkeypatch):
    path = workdir / "result.json"
    result = json.loads(path.read_text())
    result |= {"status": "diverged", "diverged": {"step": 7, "quantity": HOSTILE, "value": None}}
    path.write_text(json.dumps(result))
    assert HOSTILE in report(workdir, monkeypatch, DataError("x")).words


def test_a_profile_has_a_section_of_its_own(workdir, monkeypatch):
    one = Operation("dot.1", "jit_one_step", "dot", HOSTILE, "MLP", 0.5, 0.75, 4, 2e6, None)
    buffer = Buffer("params/dense", "parameters", "f32[8]", "", 32)
    found = Profile(
        *("mlp", "made", "cpu", 1, 1, "step", 1, 32, 4, 0.8), {"device": 0.9, "data": 0.1}, {},
        1.0, 2.0, [one], [Line("jdlopt/models/mlp.py:3", 0.75, ["dot"])],
        Memory(1, 1, 1, 1, None, None, [buffer]), "profile", {},
    )  # fmt: skip
    (workdir / "profile.json").write_text(json.dumps(found.to_dict()))
    made = report(workdir, monkeypatch, DataError("gone"))
    assert "Profile" in titles(made) and {"profile-time", "profile-lines"} <= set(made.plots())
    assert "dot dot.1" in made.words and "200 ms each" in made.words and HOSTILE in made.words
    assert "models/mlp.py:3 " in made.plots()["profile-lines"]["layout"]["yaxis"]["ticktext"]
    (workdir / "profile.json").write_text('{"steps": 0}')
    with pytest.raises(WorkdirError, match=r"profile\.json"):
        write_report(workdir)


def test_confusions_equal_the_matrix():
    matrix = np.array([[5, 0, 2], [1, 7, 0], [0, 4, 3]])
    pairs = [divmod(cell, 3) for cell, count in enumerate(matrix.ravel()) for _ in range(count)]
    targets, guesses = np.array(pairs).T
    expected = [("c", "b", 4), ("a", "c", 2), ("b", "a", 1)]
    assert figures.confusions(targets, guesses, "abc") == expected
    assert figures.confusions(targets, targets, "abc") == []
    drawn = figures.confusion("m", matrix, "abc")
    assert drawn.caption == "Most frequent confusion: c predicted as b, 4 of 7."


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8, 1), (96, 96)), ((28, 28), (84, 84)), ((600, 300, 3), (72, 144)), ((40,), (192, 96)),
     ((40, 1), (192, 96)), ((40, 3), (192, 96))],
)  # fmt: skip
def test_examples_are_drawn_small_enough_and_large_enough(shape, size):
    import base64
    import io

    from PIL import Image

    drawer = examples.drawer(shape)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    values.flat[0] = np.nan
    text, _ = drawer(values)
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.size == size


def test_what_is_no_picture_is_not_drawn():
    assert examples.drawer((13,)) is None
    assert examples.drawer((4, 3)) is None
    assert examples.drawer((4, 4, 4, 3)) is None


def test_the_worst_examples_are_those_with_the_largest_loss_nan_first():
    found = outcome((5,), 3)
    losses = found.losses.copy()
    losses[7] = np.nan
    _, table = worst.worst(found._replace(losses=losses))["worst"]
    order = np.argsort(-np.nan_to_num(losses, nan=np.inf))[: worst.WORST]
    shown = [int(str(row[0]).removeprefix("example ")) for row in table.rows]
    assert shown[0] == 7 and shown == order.tolist()


@pytest.mark.parametrize("dtype", ["int32", "float32"])  # text, and numbers of an NPZ file
def test_token_ids_without_a_vocabulary_are_numbers_and_no_curve(dtype):
    found = outcome((40,), 2)
    one = dataclasses.replace(found.spec.inputs, dtype=dtype)
    found = found._replace(
        inputs=found.inputs.astype(dtype), spec=dataclasses.replace(found.spec, inputs=one)
    )
    pictures, table = worst.worst(found)["worst"]
    assert not pictures
    index = int(str(table.rows[0][0]).removeprefix("example "))
    assert table.rows[0][-1] == " ".join(f"{i:g}" for i in found.inputs[index] if i)
    smooth = np.round(100 + 90 * np.sin(np.linspace(0, 9, 40))) + np.zeros((60, 1))
    assert len(worst.worst(found._replace(inputs=smooth.astype(dtype)))["worst"].pictures) == (
        worst.WORST if dtype == "float32" else 0  # a signal of whole numbers is one
    )


def test_rare_classes_have_their_shares_intervals_and_the_constant_guess():
    found = outcome((5,), 3, count=400)
    draw = np.random.default_rng(1)
    targets = draw.choice(3, 400, p=[0.9, 0.08, 0.02])
    found = found._replace(targets=targets, counts=np.array([900, 80, 20]))
    made = predictions.shown(found)["balance"]
    (_, *model), (name, *constant) = made.table.rows
    guesses = found.probabilities.argmax(-1)
    assert model == pytest.approx([
        sk.accuracy_score(targets, guesses), sk.balanced_accuracy_score(targets, guesses),
        sk.f1_score(targets, guesses, average="macro"),
    ])  # fmt: skip
    assert name == "always class 0" and constant[0] == pytest.approx((targets == 0).mean())
    assert constant[1] == pytest.approx(1 / 3)
    assert "900 examples, 90.0%" in made.text and "class_weights" in made.advice
    spec = made.figure.spec()
    assert spec["layout"]["yaxis"]["ticktext"][0] == "class 2 (2.0%) "
    shares, ends = spec["data"][0]["x"], spec["data"][0]["error_x"]
    low, high = balance.bounds(round(shares[0] * (targets == 2).sum()), (targets == 2).sum())
    assert shares[0] - ends["arrayminus"][0] == pytest.approx(low)
    assert shares[0] + ends["array"][0] == pytest.approx(high)
    assert not predictions.shown(found._replace(counts=np.array([9, 8, 9])))["balance"].advice


@pytest.mark.slow
def test_outcomes_equal_what_the_run_itself_measured(tmp_path):
    from jdlopt.train.loop import fit

    config = configs.load("configs/tabular/iris_mlp.py")
    config = configs.override(config, {"train.epochs": 2, "train.tensorboard": False})
    result = fit(config, tmp_path / "run")
    found = run.examine(tmp_path / "run", json.loads((tmp_path / "run/config.json").read_text()))
    accuracy = (found.probabilities.argmax(-1) == found.targets).mean()
    assert accuracy == pytest.approx(result.metrics["validation/accuracy"])
    assert found.losses.mean() == pytest.approx(result.metrics["validation/loss"], rel=1e-4)
    made = check(write_report(tmp_path / "run").read_text("utf-8"))
    assert page.number(result.metrics["validation/loss"]) in made.words


def test_twenty_thousand_classes_are_told_by_the_worst_and_the_best():
    draw, count, classes = np.random.default_rng(0), 4000, 20_000
    targets = draw.integers(0, classes, count)
    targets[:200] = 7
    guesses = np.where(draw.random(count) < 0.5, targets, draw.integers(0, classes, count))
    guesses[:150] = 9
    found = outcome((5,), 3, count=count)
    names = tuple(f"class {place}" for place in range(classes))
    found = found._replace(
        targets=targets,
        outputs=np.empty((0, 0)),
        probabilities=None,
        likeliest=Guesses(guesses, draw.random(count)),
        spec=dataclasses.replace(found.spec, class_names=names),
    )
    tracemalloc.start()
    shown = predictions.shown(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20  # a matrix of all pairs has 3 GB
    assert shown["confusion"]["table"].rows[0] == ("class 7", "class 9", 150)
    assert shown["confusion"]["figure"] is None
    rows = shown["each"].rows
    assert rows[0][:2] == ["class 7", 200] or rows[0][4] == 0
    assert len(rows) == predictions.MOST_ROWS and rows[-1][4] == 1
    assert "of 20,000 classes with the lowest F1" in shown["each"].caption
    assert "Always guessing class 7" in shown["balance"].text
