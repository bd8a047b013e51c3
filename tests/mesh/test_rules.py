"""Which array is split over which axes: by the first rule that matches its path, and by FSDP."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jdlopt.errors import ConfigError
from jdlopt.mesh import MeshFields, make_mesh, parameter_sharding, sharding_beside
from jdlopt.mesh.rules import DEFAULTS, placed

BOTH = ("tensor", "fsdp")
SIZES = {"data": 1, "fsdp": 2, "sequence": 1, "tensor": 4}
LAYER = {
    "layer_0/attention/query/kernel": (64, 64),
    "layer_0/attention/query/bias": (64,),
    "layer_0/attention/out/kernel": (64, 64),
    "layer_0/mlp/up/kernel": (64, 256),
    "layer_0/mlp/down/kernel": (256, 64),
    "layer_0/norm_0/scale": (64,),
    "head/outputs/kernel": (64, 10),
}


@pytest.fixture(autouse=True)
def _arrays_of_1024_are_split(monkeypatch):
    monkeypatch.setattr("jdlopt.mesh.rules.SMALLEST_SHARDED", 1024)


def test_layers_are_split_by_columns_and_then_by_rows():
    found = placed(LAYER, SIZES)
    assert found.problems == []
    assert list(found.splits.values()) == [
        (None, BOTH), ("tensor",), (BOTH, None), (None, BOTH), (BOTH, None), (None,),
        ("tensor", None),
    ]  # fmt: skip


def test_scanned_layers_are_split_like_one_and_never_by_layer():
    scanned = {path.replace("layer_0", "layers"): (512, *size) for path, size in LAYER.items()}
    for path, split in placed(scanned, SIZES).splits.items():
        assert split[0] is None or "layers" not in path
    one = placed(LAYER, SIZES).splits["layer_0/mlp/up/kernel"]
    assert placed(scanned, SIZES).splits["layers/mlp/up/kernel"] == (None, *one)


def test_fsdp_splits_what_is_large_and_divides():
    shapes = {"wide": (64, 128), "bias": (128,), "odd": (33, 35)}
    sizes = {**SIZES, "fsdp": 4, "tensor": 1}
    assert placed(shapes, sizes).splits == {
        "wide": (None, "fsdp"), "bias": (None,), "odd": (None, None),
    }  # fmt: skip


def test_the_users_rules_go_first():
    rules = ((r"mlp/up/kernel$", "tensor", None), (r"norm_0/scale$",))
    found = placed(LAYER, SIZES, rules)
    assert found.problems == []
    assert found.splits["layer_0/mlp/up/kernel"] == (BOTH, None)


@pytest.mark.parametrize(
    ("shapes", "rules", "words"),
    [
        (LAYER, (("mlp/upp", None),), ["'mlp/upp' matches no parameter", "layer_0/mlp/up/kernel"]),
        (LAYER, (("mlp/up/k", None, "tensor"), ("up/kernel", "tensor", None)),
         ["'mlp/up/k' and 'up/kernel' both match 'layer_0/mlp/up/kernel'"]),
        (LAYER, (("norm_0/scale", "tensor", None),), ["at least 2 dimensions", "norm_0/scale"]),
        ({**LAYER, "layer_1/mlp/up/kernel": (64, 258)}, (),
         ["mesh.tensor: 4 devices", "layer_1/mlp/up/kernel (258)"]),
        ({**LAYER, "cell/kernel": (64, 64)}, (), ["no rule places 9%", "cell/kernel"]),
    ],
)  # fmt: skip
def test_what_rules_can_not_do_is_said_with_the_paths(shapes, rules, words):
    (problem,) = placed(shapes, SIZES, rules).problems
    for word in words:
        assert word in problem
    mesh = make_mesh(MeshFields(fsdp=2, tensor=4))
    tree = {path: np.zeros(shape) for path, shape in shapes.items()}
    with pytest.raises(ConfigError):
        parameter_sharding(mesh, tree, rules)


def test_no_default_rule_contradicts_another():
    found = {pattern for family in DEFAULTS.values() for pattern, *_ in family}
    assert len(found) == sum(map(len, DEFAULTS.values()))


def test_what_is_kept_beside_parameters_lies_as_they_do():
    mesh = make_mesh(MeshFields(fsdp=2, tensor=4))
    params = {"layer_0": {"mlp": {"up": {"kernel": np.zeros((64, 256))}}}}
    moments = {
        "mu": params,
        "v_row": {"layer_0": {"mlp": {"up": {"kernel": np.zeros(64)}}}},
        "v_col": {"layer_0": {"mlp": {"up": {"kernel": np.zeros(256)}}}},
        "count": np.zeros(()),
        "basis": np.zeros((33, 4096)),
    }
    found = jax.tree.map(lambda one: one.spec, sharding_beside(mesh, moments, params))
    whole = found["mu"]["layer_0"]["mlp"]["up"]["kernel"]
    row, column = (found[name]["layer_0"]["mlp"]["up"]["kernel"] for name in ("v_row", "v_col"))
    assert (whole, row, column) == (P(None, BOTH), P(), P(BOTH))
    assert (found["count"], found["basis"]) == (P(), P(None, "fsdp"))
