"""What devices say to each other in a step that is compiled for TPUs which are not here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECORD: dict[str, Any] = json.loads(
    (ROOT / "benchmarks" / "results" / "collectives.json").read_text("utf-8")
)
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*/*.py"))
NOT_YET = {
    "entities", "dates", "stories", "cards", "card_captions", "digits_ctc", "shapes_unet",
}  # fmt: skip
"""The configs that were not compiled for TPUs yet."""
PINNED = (
    "mnist1d_cnn", "mnist1d_linear", "mnist1d_tcn", "mnist_lenet",
    "breast_cancer_mlp", "diabetes_mlp", "iris_mlp", "wine_mlp",
    "own_csv", "own_labels", "own_outputs", "own_wide_and_deep",
)  # fmt: skip
"""The configs that are compiled once more, split by two devices and by two: those that take a few
seconds. The others are compiled by `benchmarks/measure_collectives.py`."""
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "split": ("mnist_vit", 2, {"model.num_layers": 1}),
    "split recurrent": ("mnist1d_gru", 2, {}),
    "split mlp": ("mnist1d_mlp", 2, {}),
    "split cnn": ("digits_cnn", 2, {}),
    "large": ("vit_b", 1, {"model.scan_layers": True}),
    "half": ("mnist1d_mlp", 4, {"model.dtype": "bfloat16"}),
    "parts": ("digits_cnn", 4, {"optim.accumulate": 4}),
    "norm": ("mnist1d_cnn", 4, {"model.batch_norm": True}),
    "groups": ("mnist1d_cnn", 4, {"model.batch_norm": True, "model.batch_norm_groups": 4}),
    "recurrent": ("mnist1d_gru", 4, {}),
    "table": ("own_wide_and_deep", 4, {}),
    **{name: (name, 2, {}) for name in PINNED},
}
"""A config, how many devices along ``data`` of four, and what is changed."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not here"),
]


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    """What the compiler says of each case: all in one process, which has libtpu to itself."""
    cases = [[name, data, 4 // data, changes] for name, data, changes in CASES.values()]
    words = ["benchmarks/measure_collectives.py", "--json", f"--cases={json.dumps(cases)}"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = list(json.loads(done.stdout.splitlines()[-1]).values())
    return dict(zip(["memory", *CASES], found, strict=True))


def kinds(one: dict[str, Any], dtype: str = "") -> dict[str, int]:
    """The bytes of each kind of collective, of a type if one is given."""
    found: dict[str, int] = {}
    for label, each in one["collectives"].items():
        kind, _, of = label.partition(" ")
        if each["bytes"] and (not dtype or of == dtype):
            found[kind] = found.get(kind, 0) + each["bytes"]
    return found


@pytest.mark.parametrize("case", [case for case, (_, data, _) in CASES.items() if data == 4])
def test_copies_of_a_model_exchange_gradients_alone(compiled, case):
    one = compiled[case]
    assert set(kinds(one)) == {"all-reduce"}
    width = 2 if case == "half" else 4
    gradients = one["parameter_bytes"] * width // 4
    assert 0.99 * gradients <= kinds(one)["all-reduce"] <= 1.02 * gradients + 4096


def test_gradients_of_a_bfloat16_model_are_added_in_bfloat16(compiled):
    one = compiled["half"]
    assert kinds(one, "bf16")["all-reduce"] == one["parameter_bytes"] // 2
    assert kinds(one, "f32").get("all-reduce", 0) < 100  # the loss and what is measured


def test_statistics_of_groups_are_no_business_of_others(compiled):
    def count(case):
        return sum(each["count"] for each in compiled[case]["collectives"].values())

    layers = 2
    assert count("groups") <= count("norm") - 2 * layers


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("split")])
def test_split_parameters_are_gathered_and_their_gradients_scattered(compiled, case):
    one = compiled[case]
    found = kinds(one)
    assert set(found) <= {"all-gather", "all-reduce", "reduce-scatter"}
    # once for the forward pass and once for the backward pass, in the type of the products
    assert kinds(one, "bf16")["all-gather"] <= 2.05 * one["parameter_bytes"] / 2
    assert found.get("reduce-scatter", 0) <= 1.05 * one["parameter_bytes"]
    # what is not scattered is small, or adds up what was scattered over the other axis
    assert found["all-reduce"] <= 1.05 * one["parameter_bytes"]


@pytest.mark.parametrize("case", PINNED)
def test_devices_exchange_what_is_recorded(compiled, case):
    assert set(kinds(compiled[case])) == set(kinds(RECORD[f"{case} 2x2"]))


def test_every_config_is_recorded_and_exchanges_its_parameters_alone():
    for name in set(CONFIGS) - NOT_YET:
        one = RECORD[f"{name} 2x2"]
        own = {"all-gather", "all-reduce", "reduce-scatter"}
        if name == "mnist_lenet":  # masks of kernels whose split is of another width
            own |= {"collective-permute"}
        assert set(kinds(one)) <= own, name
        assert sum(kinds(one).values()) <= 3 * one["parameter_bytes"] + 16384, name


def test_a_large_model_is_gathered_twice_and_scattered_once(compiled):
    one = compiled["large"]
    # three fourths of each go to other devices, in bfloat16, some in rings that take longer
    least = 3 * one["parameter_bytes"] / 2 * 3 / 4
    assert 0.95 * least <= one["sent_bytes"] <= 1.15 * least
    assert sum(kinds(one).values()) <= 3 * one["parameter_bytes"]


def test_data_in_memory_are_read_where_they_lie(compiled):
    flat, whole = compiled["memory"]["flat"], compiled["memory"]["as they are"]
    batch = 128 * 32 * 32 * 3
    assert flat["temporary_bytes"] < 8 * batch < whole["temporary_bytes"]
    assert flat["bytes_accessed"] < 50 * batch < whole["bytes_accessed"]


@pytest.mark.parametrize("case", CASES)
def test_a_tpu_reads_no_pixels_and_runs_nothing_of_a_cpus(compiled, case):
    one = compiled[case]
    assert one["read_one_by_one"] <= 3 * one["batch"]
    assert one["scatters"] <= 2  # of embeddings' gradients
    assert one["output_bytes"] - one["aliased_bytes"] < 8192  # but what a step measures, padded
    assert not [call for call in one["calls"] if "cpu" in call.lower()]
