"""A population equals its trials trained alone, whatever the execution mode, folds and devices."""

import json
import operator

import jax
import numpy as np
import pytest
from mixed_tables import make_table

from jdlopt import config as configs
from jdlopt.errors import ConfigError
from jdlopt.models import pruning
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.setup import traced_keys
from jdlopt.study.space import int as integers
from jdlopt.study.space import uniform
from jdlopt.study.trial import Trial
from jdlopt.train import checkpoint
from jdlopt.train.loop import fit

IRIS = {
    "data": {"source": "iris", "batch_size": 16, "validation_fraction": 0.2},
    "model": {"name": "mlp", "features": (8,), "dropout_rate": 0.1},
    "optim": {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 0.01},
    "mesh": {"data": 1},
    "train": {"epochs": 4, "tensorboard": False, "evaluate_test": False},
}
MODELS = {
    "linear": {"name": "linear"},
    "mlp": {"name": "mlp", "features": (8,), "dropout_rate": 0.1},
    "cnn": {"name": "cnn", "features": (4,), "batch_norm": True, "dropout_rate": 0.1},
    "gru": {"name": "gru", "features": 4, "dropout_rate": 0.1},
    "lstm": {"name": "lstm", "features": 4, "dropout_rate": 0.1},
    "tabm": {"name": "tabm", "submodels": 2, "features": (4,), "numeric_embedding": "pbld"},
}


def trained(raw, trials, execution_mode="scan", width=None, **more):
    [one] = structure.build(raw, sorted({m.fold for m in trials if m.fold is not None}) or None)
    population = Population(
        one,
        trials,
        width=width or len(trials),
        execution_mode=execution_mode,
        cache=Cache(),
        **more,
    )
    population.train_all()
    return population


def lines(result):
    text = (result.workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def assert_same(rows, expected, tolerance):
    assert len(rows) == len(expected)
    for row, line in zip(rows, expected):
        assert row.keys() == line.keys()
        for name in row:
            assert row[name] == pytest.approx(line[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "linear")) for name in MODELS],
)
def test_a_trial_of_a_population_equals_the_same_trial_alone(tmp_path, model):
    raw = {**IRIS, "model": MODELS[model], "train": {**IRIS["train"], "epochs": 2}}
    rates = [1e-3, 3e-2]
    trials = [Trial(i, seed=i, fold=None, params={"optim.learning_rate": rates[i]}) for i in (0, 1)]
    trained(raw, trials)
    for i in (0, 1):
        alone = fit(
            configs.override(raw, {"seed": i, "optim.learning_rate": rates[i]}), tmp_path / str(i)
        )
        assert_same(trials[i].rows, lines(alone), 1e-6)
        assert trials[i].tracker.best.step == alone.record["best"]["step"]


@pytest.mark.parametrize("execution_mode", ["vmap", "each"])
def test_execution_modes_agree(execution_mode):
    def trials():
        return [Trial(i, 0, None, {"model.dropout_rate": 0.1 * i}) for i in range(3)]

    expected = trained(IRIS, trials()).trials
    for found, want in zip(trained(IRIS, trials(), execution_mode).trials, expected):
        assert_same(found.rows, want.rows, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("execution_mode", ["scan", "vmap"])
def test_trials_differ_in_the_rates_of_groups_and_unfreeze_as_alone(tmp_path, execution_mode):
    body = {"params": ("dense_0",), "unfreeze_at": 4}
    optim = {**IRIS["optim"], "freeze": ("dense_0/bias",), "groups": {"body": body}}
    raw = {**IRIS, "optim": optim, "train": {**IRIS["train"], "epochs": 2}}
    key = "optim.groups.body.learning_rate_scale"
    trials = [Trial(i, i, None, {key: rate}) for i, rate in enumerate((0.1, 2.0))]
    trained(raw, trials, execution_mode)
    alone = fit(configs.override(raw, {"seed": 1, key: 2.0}), tmp_path / "alone")
    assert_same(trials[1].rows, lines(alone), 1e-5)


@pytest.mark.parametrize("execution_mode", ["scan", "vmap", "each"])
def test_eight_devices_equal_one(execution_mode):
    """To the bit, except side by side: a product of another width may be summed otherwise."""
    rates = [1e-6, 3e-2, 1e-5, 2e-6, 1e-2, 3e-6, 4e-6, 5e-6, 6e-6, 2e-2, 7e-6]

    def trials():
        return [Trial(i, i, None, {"optim.learning_rate": r}) for i, r in enumerate(rates)]

    halving = {"halving": "asha", "rungs": [6, 12]}
    one = trained(IRIS, trials(), execution_mode, **halving)
    eight = trained(IRIS, trials(), execution_mode, devices=jax.local_devices(), **halving)
    assert len(one.states.step.sharding.device_set) == 1
    assert len(eight.states.step.sharding.device_set) == 8
    assert {m.status for m in one.trials} == {"done", "pruned"}
    for mine, other in zip(eight.trials, one.trials):
        assert (mine.status, mine.steps) == (other.status, other.steps)
        if execution_mode == "vmap":
            assert_same(mine.rows, other.rows, 1e-6)
        else:
            assert mine.rows == other.rows


@pytest.mark.slow
def test_survivors_are_shared_evenly_by_the_devices():
    rates = [3e-2, 1e-6] * 4  # those that survive begin on every second of two devices
    devices = jax.local_devices()[:2]
    trials = [Trial(i, 0, None, {"optim.learning_rate": r}) for i, r in enumerate(rates)]
    population = trained(IRIS, trials, devices=devices, halving="median", rungs=[6])
    kept = [row for row, index in enumerate(population.rows) if index is not None]
    assert [m.status for m in trials].count("done") == len(kept) < 8
    _, counts = population.layout.turns(kept, population.width)
    assert max(counts) - min(counts) <= 1


@pytest.mark.slow
def test_a_population_saved_on_eight_devices_goes_on_with_one(tmp_path):
    def trials():
        return [Trial(i, i, None, {}) for i in range(5)]

    expected = trained(IRIS, trials()).trials
    [one] = structure.build(IRIS)
    options = {"width": 5, "execution_mode": "scan", "directory": tmp_path}
    first = Population(one, trials(), cache=Cache(), devices=jax.local_devices(), **options)
    assert first.width == 8
    first.advance()
    first.save()
    second = Population(one, trials(), cache=Cache(), devices=jax.local_devices()[:1], **options)
    assert second.step == first.step > 0 and second.width == 5
    second.train_all()
    for found, want in zip(second.trials, expected):
        assert found.rows == want.rows


@pytest.mark.slow
def test_a_wider_program_than_there_are_trials_changes_nothing():
    one = trained(IRIS, [Trial(0, 0, None, {})]).trials[0]
    padded = trained(IRIS, [Trial(0, 0, None, {})], width=4).trials[0]
    assert_same(padded.rows, one.rows, 1e-6)


def test_folds_are_scikit_learns_and_each_equals_its_run_alone(tmp_path):
    from sklearn.model_selection import StratifiedKFold

    raw = {**IRIS, "data": {**IRIS["data"], "folds": 4, "preprocess": {"scale": "standard"}}}
    trials = [Trial(0, 0, fold, {}) for fold in range(4)]
    population = trained(raw, trials)
    alone = fit(configs.override(raw, {"data.fold": 2}), tmp_path / "fold")
    assert_same(trials[2].rows, lines(alone), 1e-5)
    from jdlopt.data.source import open_dataset

    whole = open_dataset({"source": "iris"})
    kept = np.sort(np.concatenate([whole.parts[s][1] for s in ("train", "validation")]))
    labels = whole.pools["train"].read(kept).targets
    splitter = StratifiedKFold(4, shuffle=True, random_state=0)
    for fold, (train, held) in enumerate(splitter.split(kept, labels)):
        np.testing.assert_array_equal(population.structure.folds[fold].train, train)
        mine = population.structure.folds[fold]
        np.testing.assert_array_equal(mine.validation[mine.weights > 0], held)


@pytest.mark.slow
def test_folds_of_several_inputs_equal_their_runs_alone(tmp_path):
    raw = {
        **IRIS,
        "data": {
            "source": str(make_table(tmp_path, 60)),
            "target": "size",
            "batch_size": 16,
            "folds": 3,
            "text": {"max_tokens": 8},
            "preprocess": {"scale": "standard"},
        },
        "model": {"name": "fusion", "width": 4, "hidden": (4,), "image_features": (4,)},
        "train": {**IRIS["train"], "epochs": 2},
    }
    trials = [Trial(0, 0, fold, {}) for fold in range(3)]
    trained(raw, trials)
    alone = fit(configs.override(raw, {"data.fold": 1}), tmp_path / "fold")
    assert_same(trials[1].rows, lines(alone), 1e-5)


@pytest.mark.slow
def test_folds_whose_validation_splits_differ_by_an_example_train_together(tmp_path):
    raw = {**IRIS, "data": {"source": "digits", "batch_size": 64, "folds": 5}}
    raw["train"] = {**IRIS["train"], "epochs": 1}
    trials = [Trial(0, 0, fold, {}) for fold in range(5)]
    found = trained(raw, trials).structure.folds.values()
    assert len({int(fold.weights.sum()) for fold in found}) == 2
    for fold in (0, 4):
        alone = fit(configs.override(raw, {"data.fold": fold}), tmp_path / str(fold))
        assert_same(trials[fold].rows, lines(alone), 1e-5)


def test_a_diverged_trial_is_dropped_and_the_others_go_on():
    raw = {**IRIS, "optim": {"name": "sgd", "learning_rate": 0.1}, "model": {"name": "mlp"}}
    raw["loss"] = {"name": "cross_entropy", "l2": 1e-3}
    trials = [Trial(0, 0, None, {"loss.l2": 1e20}), Trial(1, 0, None, {})]
    trained(raw, trials)
    assert trials[0].status == "diverged" and "diverged at step" in trials[0].reason
    assert trials[1].status == "done"
    assert_same(trials[1].rows, trained(raw, [Trial(1, 0, None, {})]).trials[0].rows, 1e-6)


def test_halving_stops_the_worse_at_a_rung():
    trials = [
        Trial(i, 0, None, {"optim.learning_rate": rate})
        for i, rate in enumerate([1e-6, 1e-5, 3e-2])
    ]
    population = trained(IRIS, trials, halving="asha", rungs=[12])
    assert [trial.status for trial in trials] == ["pruned", "pruned", "done"]
    assert [trial.steps for trial in trials][:2] == [12, 12]
    assert len(population.reached[12]) == 3


@pytest.mark.slow
def test_survivors_move_into_a_narrower_program_and_train_on_as_before(tmp_path):
    rates = [1e-6, 3e-2, 1e-5, 2e-6, 1e-2, 3e-6, 4e-6, 5e-6] * 2

    def trials():
        return [Trial(i, i, None, {"optim.learning_rate": r}) for i, r in enumerate(rates)]

    raw = {**IRIS, "train": {**IRIS["train"], "monitor": "validation/loss"}}
    halving = {"halving": "asha", "rungs": [6, 12]}
    expected = trained(raw, trials(), **halving)
    found = trained(raw, trials(), "vmap", **halving)
    assert found.width < expected.width == 16
    assert [m.status for m in found.trials] == [m.status for m in expected.trials]
    assert "pruned" in [m.status for m in found.trials]
    for mine, other in zip(found.trials, expected.trials):
        assert_same(mine.rows, other.rows, 1e-4)
    [one] = structure.build(raw)
    saved = Population(one, trials(), width=16, execution_mode="vmap", cache=Cache(),
                       directory=tmp_path, **halving)  # fmt: skip
    saved.advance()
    while saved.width == 16:
        saved.advance()
    saved.save()
    resumed = Population(one, trials(), width=16, execution_mode="vmap", cache=Cache(),
                         directory=tmp_path, **halving)  # fmt: skip
    assert resumed.step == saved.step
    resumed.train_all()
    for mine, other in zip(resumed.trials, found.trials):
        assert mine.status == other.status
        assert_same(mine.rows, other.rows, 1e-4)


def test_a_saved_population_goes_on_to_the_same_end(tmp_path):
    def trials():
        return [Trial(i, i, None, {}) for i in range(2)]

    expected = trained(IRIS, trials())
    [one] = structure.build(IRIS)
    first = Population(one, trials(), width=2, execution_mode="scan", cache=Cache(),
                       directory=tmp_path / "p")  # fmt: skip
    first.advance()
    first.save()
    second = Population(one, trials(), width=2, execution_mode="scan", cache=Cache(),
                        directory=tmp_path / "p")  # fmt: skip
    assert second.step == first.step > 0
    second.train_all()
    for found, want in zip(second.trials, expected.trials):
        assert found.rows == want.rows


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda content: content[: len(content) // 2]])
def test_a_damaged_checkpoint_costs_the_training_since_the_one_before(tmp_path, spoil):
    def population():
        trials = [Trial(i, i, None, {}) for i in range(2)]
        return Population(one, trials, width=2, execution_mode="scan", cache=cache,
                          directory=tmp_path / "p")  # fmt: skip

    [one], cache = structure.build(IRIS), Cache()
    first = population()
    for _ in range(2):
        first.advance()
        first.save()
    steps = checkpoint.steps(tmp_path / "p")
    assert len(steps) == 2
    for step, goes_on in zip(reversed(steps), (steps[0], 0)):
        meta = checkpoint.place(tmp_path / "p", step) / checkpoint.META
        meta.write_bytes(spoil(meta.read_bytes()))
        with pytest.warns(checkpoint.CheckpointWarning, match="passed over|begins anew"):
            again = population()
        assert again.step == goes_on
    again.train_all()
    expected = trained(IRIS, [Trial(i, i, None, {}) for i in range(2)])
    assert [trial.rows for trial in again.trials] == [trial.rows for trial in expected.trials]


def test_patience_ends_a_trial_as_it_ends_a_run(tmp_path):
    raw = {**IRIS, "train": {**IRIS["train"], "epochs": 12, "patience": 2}}
    trial = trained(raw, [Trial(0, 0, None, {})]).trials[0]
    alone = fit(raw, tmp_path / "run")
    assert trial.steps == alone.record["steps"]
    assert trial.status == alone.record["status"]


def test_new_values_compile_nothing():
    space = {"model.prune.sparsity": uniform(0.0, 0.95), "model.prune.every": integers(1, 9)}
    assert traced_keys(space) == {"model.prune.sparsity"}
    prune = {"criterion": "magnitude", "sparsity": 0.5}
    [one] = structure.build({**IRIS, "model": {**IRIS["model"], "prune": prune}})
    cache = Cache()
    for rate, sparsities in ((1e-3, (0.0, 0.25)), (1e-2, (0.75, 0.5)), (1e-1, (0.9375, 0.5))):
        trials = [
            Trial(seed, seed, None, {"optim.learning_rate": rate, "model.prune.sparsity": share})
            for seed, share in enumerate(sparsities)
        ]
        made = Population(one, trials, width=2, execution_mode="scan", cache=cache)
        made.train_all()
        programs = cache.compile.programs
        for row, index in enumerate(made.rows):
            alone = jax.tree.map(operator.itemgetter(row), made.states)
            found = pruning.sparsity_of(alone.params, alone.model_state)["sparsity"]
            assert found == sparsities[index]
    assert programs == 3  # initialising, training, evaluating


def test_structures_of_one_dataset_open_it_once():
    kept = {}
    sizes = [{**IRIS, "data": {**IRIS["data"], "batch_size": size}} for size in (10, 20)]
    other = {**IRIS, "data": {**IRIS["data"], "split_seed": 7}}
    [first], [second], [third] = [structure.build(raw, None, kept) for raw in (*sizes, other)]
    assert first.experiment.data is second.experiment.data
    assert third.experiment.data is not first.experiment.data


def test_values_out_of_range_are_refused():
    [one] = structure.build(IRIS)
    with pytest.raises(ConfigError, match=r"model\.dropout_rate"):
        one.hyperparameters({"model.dropout_rate": 1.5})
