"""Low rank: two factors are the best of their rank, and a run that has them is a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ROWS, base_config, check_same, experiment_of, made

import jdlopt
from jdlopt import config as configs
from jdlopt.cli import main
from jdlopt.compress.low_rank import (
    Spectrum,
    factorize_run,
    factorized,
    factors,
    ranks_of,
    spectra,
)
from jdlopt.compress.made import with_data_of
from jdlopt.errors import ConfigError
from jdlopt.models import make_model
from jdlopt.models.kernel_inputs import Visit, visiting
from jdlopt.models.low_rank import Size
from jdlopt.train import inference
from jdlopt.train.loop import fit
from jdlopt.train.run import Run


@pytest.fixture(scope="module")
def base():
    return base_config()


# --- numbers --------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    taps=st.sampled_from([(), (3,), (2, 3)]),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 6),
    layers=st.integers(0, 2),
    data=st.data(),
)
def test_factors_are_the_truncated_singular_values(taps, inputs, outputs, layers, data):
    size = Size(int(np.prod(taps, dtype=int)) * inputs, outputs)
    rank = data.draw(st.integers(1, size.full))
    stacked = (layers,) * bool(layers)
    kernel = np.random.default_rng(inputs).normal(size=(*stacked, *taps, inputs, outputs))
    first, second = factors(kernel, rank, stacked=bool(layers))
    assert first.shape == (*stacked, *taps, inputs, rank)
    assert second.shape == (*stacked, *(1,) * len(taps), rank, outputs)
    pairs = zip(kernel.reshape(-1, *size), first.reshape(-1, size.inputs, rank),
                second.reshape(-1, rank, outputs), strict=True)  # fmt: skip
    for matrix, one, other in pairs:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        best = left[:, :rank] @ np.diag(values[:rank]) @ right[:rank]
        np.testing.assert_allclose(one @ other, best, atol=1e-10)
        known = Spectrum(size, values[None])
        assert known.rank_of(known.energy_of(rank)) <= rank
        assert known.energy_of(known.rank_of(0.8)) >= 0.8 - 1e-9
        assert known.rank_of(0.8) == 1 or known.energy_of(known.rank_of(0.8) - 1) < 0.8
    assert (rank <= size.largest) == (size.weights_at(rank) < size.weights)


def split(experiment, weights):
    known = spectra(experiment, weights)
    ranks = {path: one.size.full for path, one in known.items()}
    return factorized(experiment.config, weights, ranks)


ALIKE = ("resnet bottleneck", "resnet without shortcut", "cnn average", "linear", "lstm")
MANY = [name for name in ROWS if name not in ("cnn", "realmlp", *ALIKE)]


@pytest.mark.parametrize(
    "name", ["cnn", *(pytest.param(one, marks=pytest.mark.slow) for one in MANY)]
)
def test_factors_of_full_rank_are_the_model(base, name):
    ensemble = 2 if name == "mlp" else 1
    config, weights = check_same(base, ROWS[name], name.split()[0], split, ensemble)
    factor = [path for path in paths(weights.params) if path.endswith("factor/kernel")]
    assert len(factor) >= len(config.model.low_rank.ranks) >= 1


def paths(tree):
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def test_what_can_not_be_split_is_one_line(base):
    known = {"a": Spectrum(Size(8, 8), np.ones((1, 8))), "b": Spectrum(Size(9, 1), np.ones((1, 1)))}
    assert ranks_of(known, rank=2) == ranks_of(known, energy=0.25) == {"a": 2}
    assert ranks_of(known, rank=0.3) == {"a": 2}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"rank": 0}, "found 0"), ({"rank": -0.5}, "-0.5"), ({"rank": 1.5}, "1.5"),
        ({"energy": 0.0}, r"\(0, 1\], found 0.0"), ({"energy": 1.1}, "1.1"), ({}, "either"),
        ({"energy": 1.0}, "no layer gets smaller: a at 8 of at most 3"),
    ]  # fmt: skip
    for asked, said in wrong:
        with pytest.raises(ConfigError, match=said):
            ranks_of(known, **asked)
    sections: list[tuple[dict[str, Any], str]] = [
        ({"ranks": {"head/dense_1": 2}}, "no layer 'head/dense_1'.*nearest.*head/dense_0"),
        ({"ranks": {"head/dense_0": 9}}, "9 is more than 4"),
        ({"rank": 2, "patterns": ("conv",)}, "'conv' matches no kernel"),
        ({"rank": 4}, "at 4 no layer gets smaller; at most 2"),
    ]
    for section, said in sections:
        model = make_model({"name": "mlp", "features": (6,), "low_rank": section}, 3)
        with pytest.raises(ConfigError, match=said):
            jax.eval_shape(model.init, jax.random.key(0), np.ones((1, 4), np.float32), {})
    config, model, weights = made(base, ROWS["realmlp"], "realmlp")
    with pytest.raises(ConfigError, match="This model has none"):
        spectra(experiment_of(config, model, weights, ROWS["realmlp"]), weights)
    low = {"name": "mlp", "low_rank": {"ranks": {"head/dense_0": 0}}}
    raw = {"data": {"source": "iris"}, "optim": {"name": "sgd"}, "model": low}
    with pytest.raises(ConfigError, match=r"head/dense_0: must be at least 1, found 0"):
        jdlopt.Experiment.build(raw, check=False)


def test_both_factors_are_quantized_each_by_its_own_inputs():
    section = {"name": "cnn", "features": (6,), "low_rank": {"rank": 2, "patterns": ("conv_",)}}
    model = make_model({**section, "quantize": {"weights": 4.0, "activations": 8.0}}, 3)
    x = np.ones((1, 6, 6, 4), np.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x, {})
    kernels = {path: leaf.shape for path, leaf in paths(params).items() if "kernel" in path}
    assert kernels["conv_0/factor/kernel"] == (3, 3, 4, 2)
    assert kernels["conv_0/kernel"] == (1, 1, 2, 6)
    layers = {path.removesuffix("/input/low") for path in paths(state) if path.endswith("low")}
    assert {f"ranges/{path.removesuffix('/kernel')}" for path in kernels} == layers
    widths: list[int] = []
    visit = Visit(lambda x, known: (widths.append(x.shape[-1]) or x, known))
    plain = make_model(section, 3)
    with visiting(visit, lambda path: True):
        jax.eval_shape(
            lambda *given: plain.apply(*given, {}, key=None, train=False)[0], params, state, x
        )
    assert widths == [4, 2, 6 * 6 * 6]


# --- runs -----------------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "data": {"source": "digits", "batch_size": 64},
    "model": {"name": "mlp", "features": (64, 64), "batch_norm": True},
    "optim": {"name": "adam", "learning_rate": 0.003},
    "train": {"epochs": 4, "tensorboard": False},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(CONFIG, tmp_path_factory.mktemp("low_rank") / "source")


@pytest.mark.slow
def test_a_run_of_low_rank_is_a_run(source: Run, tmp_path: Path):
    run = factorize_run(source, tmp_path / "low", energy=0.6)
    ranks = run.config.model.low_rank.ranks
    assert ranks and set(ranks) <= {"head/dense_0", "head/dense_1", "head/outputs"}
    layers = {one["layer"]: one for one in run.record["made"]["how"]["layers"]}
    assert all(one["energy"] >= 0.6 and one["rank"] == ranks[path] for path, one in layers.items())
    sizes = [one.record["n_params"] for one in (source, run)]
    opened = [with_data_of(one, one.config) for one in (source, run)]
    macs = [
        inference.multiplications(experiment, one.weights)
        for experiment, one in zip(opened, (source, run), strict=True)
    ]
    assert sizes[1] < sizes[0]
    # two products, and never their product: what is multiplied falls as what is stored does
    assert macs[0] - macs[1] == pytest.approx(sizes[0] - sizes[1], rel=0.02)
    assert run.metrics["test/loss"] == pytest.approx(run.evaluate("test")["loss"])
    before, after = (paths(one.weights.model_state) for one in (source, run))
    assert all(not np.allclose(before[path], after[path]) for path in before)  # estimated anew
    longer = {"train.epochs": 6, "optim.learning_rate": 0.001}
    on = configs.override(CONFIG, {"model.pretrained": str(run.workdir), **longer})
    trained = fit(on, tmp_path / "on")
    assert trained.config.model.low_rank == run.config.model.low_rank
    assert trained.metrics["validation/loss"] < run.metrics["validation/loss"]
    for form in ("onnx", "stablehlo"):
        assert main(["export", str(trained.workdir), f"--format={form}"]) == 0
    with pytest.raises(ConfigError, match="of low rank already"):
        factorize_run(run, tmp_path / "again", rank=2)


@pytest.mark.slow
def test_compress_splits_and_trains_on(source: Run, tmp_path: Path, capsys):
    out = tmp_path / "c"
    flags = [f"--out={out}", "--within=5pp", "--seeds=3", "--workers=1", "--budget=10m"]
    assert main(["compress", str(source.workdir), "--methods=low_rank,folding", *flags]) == 0
    record = json.loads((out / "compress.json").read_text())
    rows = {row["name"]: row for row in (record["baseline"], *record["candidates"])}
    assert {"folded", "low_rank_50"} <= set(rows), rows
    assert rows["folded"]["decision"] == "accepted"
    assert rows["folded"]["loss"]["mean"] == pytest.approx(0.0, abs=1e-3)
    assert rows["low_rank_50"]["macs"] < rows["baseline"]["macs"]
    assert rows["low_rank_50"]["bytes"] < rows["baseline"]["bytes"]
    assert record["chosen"] is not None
    assert main(["eval", str(out / "chosen"), "--split=test"]) == 0
