"""Segmentation: losses and metrics against scikit-learn and hand counts, models, a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk
from PIL import Image

from jdlopt import losses
from jdlopt.cli import main
from jdlopt.data import open_dataset
from jdlopt.data.bundled.shapes.drawing import CLASSES, draw
from jdlopt.errors import ConfigError
from jdlopt.metrics import make_collector
from jdlopt.models import make_model
from jdlopt.tasks.segmentation import SEGMENTATION, measured
from jdlopt.train import serve
from jdlopt.train.experiment import Experiment

RNG = np.random.default_rng(5)
OUTPUTS = RNG.normal(0, 2, (5, 4, 3, 3)).astype(np.float32)
TARGETS = RNG.integers(-1, 3, (5, 4, 3)).astype(np.int32)
TARGETS[0] = -1


def by_hand(outputs, targets, smooth):
    """Returns the soft Dice loss of one example."""
    known = targets >= 0
    shares = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    found = []
    for one in range(outputs.shape[-1]):
        p, y = shares[..., one][known], (targets == one)[known]
        found.append((2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth))
    return 1 - np.mean(found)


def test_dice_equals_a_hand_count_and_void_has_no_gradient():
    section = {"name": "cross_entropy_dice", "dice_weight": 0.25, "dice_smooth": 0.7}
    loss = losses.make_loss({"name": "dice", "dice_smooth": 0.7}, positions=2)
    both = losses.make_loss(section, positions=2)
    hparams = {"dice_weight": jnp.float32(0.25), "dice_smooth": jnp.float32(0.7)}

    @jax.jit
    def computed(outputs, targets):
        each = loss.per_example(outputs, targets, hparams)
        slope = jax.grad(lambda x: both.objective(x, targets, {}, hparams))(outputs)
        return each, both.per_example(outputs, targets, hparams), slope

    found, mixed, slope = map(np.asarray, computed(OUTPUTS, TARGETS))
    wanted = np.array([by_hand(*pair, 0.7) for pair in zip(OUTPUTS, TARGETS, strict=True)])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    known = TARGETS >= 0
    shares = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(-1, keepdims=True)
    rows = -np.log(np.take_along_axis(shares, np.maximum(TARGETS, 0)[..., None], -1)[..., 0])
    means = [row[some].mean() if some.any() else 0.0 for row, some in zip(rows, known, strict=True)]
    np.testing.assert_allclose(mixed, 0.75 * np.array(means) + 0.25 * wanted, atol=1e-6)
    assert np.isfinite(slope).all() and not slope[~known].any()
    assert slope[known].any(axis=-1).all()
    with pytest.raises(ConfigError, match="no weights of classes"):
        losses.make_loss({"name": "dice"}, np.ones(3), positions=2)


def test_metrics_equal_scikit_learns():
    names = ["mean_iou", "dice", "pixel_accuracy", "iou_per_class"]
    collector = make_collector(names, "segmentation", 5)  # of which two never occur
    probabilities = np.concatenate([OUTPUTS, np.full((5, 4, 3, 2), -9.0)], -1).astype(np.float32)
    batches = []
    for start in (0, 3):
        rows = np.minimum(np.arange(start, start + 3), 4)
        real = (np.arange(start, start + 3) < 5).astype(np.float32)
        given = (probabilities[rows], probabilities[rows], TARGETS[rows], real, np.zeros(3))
        batches.append(collector.collect(*map(jnp.asarray, given)))
    assert "pixels" not in collector.gathered
    found = collector.finish(batches)
    known = TARGETS >= 0
    true, guess = TARGETS[known], OUTPUTS.argmax(-1)[known]
    assert found["mean_iou"] == pytest.approx(sk.jaccard_score(true, guess, average="macro"))
    assert found["dice"] == pytest.approx(sk.f1_score(true, guess, average="macro"))
    assert found["pixel_accuracy"] == pytest.approx(sk.accuracy_score(true, guess))
    each = sk.jaccard_score(true, guess, average=None)
    assert found["iou_per_class"] == pytest.approx([*each, 0.0, 0.0])
    step = measured(jnp.asarray(OUTPUTS), jnp.asarray(TARGETS))["pixel_accuracy"]
    assert float(step) == pytest.approx(found["pixel_accuracy"])
    counts = [[2, 1], [1, 4]]  # by hand: 2 of 4, 4 of 6
    assert np.mean([2 / 4, 4 / 6]) == pytest.approx(
        make_collector(["mean_iou"], "segmentation", 2).finish(
            [{"real": np.ones(1, bool), "loss": np.zeros(1), "pixels": np.array(counts)}]
        )["mean_iou"]
    )


def test_models_have_outputs_of_the_images_size():
    cases = (
        ({"name": "unet", "features": 2, "depth": 1}, (2, 5, 7)),
        ({"name": "resnet", "stem": "cifar", "stage_sizes": (1,), "features": (4,)}, (2, 4, 3, 3)),
    )
    for section, shape in cases:
        model = make_model(section, 3, positions=2)

        def outputs(x, model=model):
            params, state = model.init(jax.random.key(0), x, {})
            return model.apply(params, state, x, {}, key=None, train=False)[0]

        made = jax.eval_shape(outputs, jax.ShapeDtypeStruct(shape, jnp.float32))
        assert made.shape == (*shape[:3], 3)
    with pytest.raises(ConfigError, match="'vgg' has one row of outputs an example"):
        make_model({"name": "vgg"}, 3, positions=2)


def test_words_and_columns_of_masks(tmp_path):
    (tmp_path / "made.npz").write_bytes(b"")
    np.savez(
        tmp_path / "made.npz", x=np.zeros((8, 2, 2), np.uint8),
        y=np.tile([[[0, 1], [1, -1]], [[0, 0], [0, 0]]], (4, 1, 1)),
        class_names=np.array(["ground", "tree"]),
    )  # fmt: skip
    config = {
        "data": {"source": str(tmp_path / "made.npz"), "task": "segmentation", "batch_size": 2},
        "model": {"name": "unet", "features": 2, "depth": 1},
        "optim": {"name": "sgd", "learning_rate": 0.1},
        "train": {"steps": 1},
        "mesh": {"data": 1},
    }
    spec = Experiment.build(config).spec
    masks = np.array([[[0, 1], [1, -1]], [[0, 0], [0, 0]]])
    decoded = SEGMENTATION.decode(np.eye(2)[np.maximum(masks, 0)], None, spec)
    assert SEGMENTATION.told is not None
    assert SEGMENTATION.told(masks, spec) == ["tree 66.7%", "ground 100.0%"]
    columns = SEGMENTATION.columns(decoded, None, spec)
    assert columns == {"share_ground": [0.5, 1.0], "share_tree": [0.5, 0.0]}
    for bad, message in (
        ({"data.preprocess": {"resize": (4, 4)}}, "data.image_size resizes both"),
        ({"model": {"name": "mlp", "features": (3,)}}, "needs one for each pixel"),
        ({"loss": {"name": "mse"}}, "'mse' is not for segmentation"),
        ({"train.monitor": "validation/accuracy"}, "but the task is segmentation"),
    ):
        changed = json.loads(json.dumps(config))
        for key, value in bad.items():
            first, _, rest = key.partition(".")
            if rest:
                changed.setdefault(first, {})[rest] = value
            else:
                changed[first] = value
        with pytest.raises(ConfigError, match=message):
            Experiment.build(changed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of drawn shapes."""
    folder = tmp_path_factory.mktemp("segmentation")
    drawn = draw(0, 60, size=16)
    for number, (image, mask) in enumerate(zip(*drawn, strict=True)):
        for place, pixels in (("images", image), ("masks", mask)):
            (folder / "shapes" / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "shapes" / place / f"{number}.png")
    (folder / "shapes/classes.txt").write_text("\n".join(CLASSES))
    config = {
        "data": {
            "source": str(folder / "shapes"),
            "batch_size": 8,
            "augment": {"flip": 0.5, "rotate": 20.0},
        },
        "model": {"name": "unet", "features": 4, "depth": 2, "dropout_rate": 0.1},
        "loss": {"name": "cross_entropy_dice"},
        "optim": {"name": "adam", "learning_rate": 0.02},
        "train": {"epochs": 12, "tensorboard": False},
        "mesh": {"data": 1},
    }
    (folder / "config.py").write_text(f"def get_config():\n    return {config!r}\n")
    words = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}", "--json"]
    assert main(["train", *words]) == 0
    return folder


@pytest.mark.slow
def test_a_run_predicts_masks_as_files_and_its_metrics_are_scikit_learns(trained, capsys):
    run, source = trained / "run", trained / "shapes"
    words = ["predict", str(run), f"--input={source}", f"--output={trained / 'out'}"]
    assert main(words) == 0
    dataset = open_dataset({"source": str(source)})
    rows = dataset.rows("test")
    files = dataset.origins["train"]["file"][rows]
    guesses = []
    for file in files:
        with Image.open(trained / "out" / file.removeprefix("images/")) as image:
            assert image.mode == "P"
            guesses.append(np.asarray(image))
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    true = dataset.read("test").targets.ravel()
    wanted = sk.jaccard_score(true, np.stack(guesses).ravel(), average="macro")
    assert metrics["test/mean_iou"] == pytest.approx(wanted)
    assert (trained / "out/classes.txt").read_text().split() == list(CLASSES)
    said = serve.predict_run(run, source, with_inputs=True)
    assert len(said.given["file"]) == 60 and all(Path(one).is_file() for one in said.given["file"])
    assert said.values.shape == (60, 16, 16) and said.probabilities is None
    assert list(said.columns) == [f"share_{name}" for name in CLASSES]
    assert main(words) == 2  # never over what is there
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_shows_images_masks_and_predicted_masks(trained, monkeypatch):
    monkeypatch.setattr("jdlopt.data.dataset.class_counts", None)  # no mask is counted
    assert main(["report", str(trained / "run")]) == 0
    text = (trained / "run/report.html").read_text()
    assert "the image, its mask and the predicted one" in text and 'class="legend"' in text
    assert "Overlap of each class" in text and "mean_iou" in text


@pytest.mark.slow
def test_a_model_is_exported_with_a_row_for_each_pixel(trained, capsys):
    words = ["export", str(trained / "run"), "--format=onnx", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "segmentation" and found["relative_error"] < 1e-4
    assert main(["export", str(trained / "run"), "--format=bundle"]) == 2
    assert "at each position" in capsys.readouterr().err
