"""Weights from outside: what is read, where it goes, and what is refused."""

from __future__ import annotations

import collections
import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from jdlopt import config as configs
from jdlopt.errors import ConfigError, UserError, WorkdirError
from jdlopt.models import make_model, pretrained
from jdlopt.models.pretrained import files
from jdlopt.study import structure
from jdlopt.study.population import Cache, Population
from jdlopt.study.trial import Trial
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit

VIT = {
    "name": "vit", "features": 8, "num_layers": 2, "num_heads": 2, "mlp_features": 12,
    "patch_size": 4,
}  # fmt: skip
CONFIG = {
    "data": {"source": "digits", "batch_size": 32},
    "model": VIT,
    "optim": {"name": "sgd", "learning_rate": 1e-6},
    "train": {"steps": 2, "evaluate_test": False, "tensorboard": False},
}


def vit_tensors(outputs: int = 10, patches: int = 4) -> dict[str, np.ndarray]:
    """A checkpoint's tensors as Hugging Face names them."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    found = {
        "vit.embeddings.cls_token": drawn(1, 1, 8),
        "vit.embeddings.position_embeddings": drawn(1, patches + 1, 8),
        "vit.embeddings.patch_embeddings.projection.weight": drawn(8, 1, 4, 4),
        "vit.embeddings.patch_embeddings.projection.bias": drawn(8),
        "vit.layernorm.weight": drawn(8),
        "vit.layernorm.bias": drawn(8),
        "vit.pooler.dense.weight": drawn(8, 8),
        "classifier.weight": drawn(outputs, 8),
        "classifier.bias": drawn(outputs),
    }
    wide = {"mlp.fc1": (12, 8), "mlp.fc2": (8, 12)}
    for index in range(2):
        layer = f"vit.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            wide[f"attention.{name}"] = (8, 8)
        for name, shape in wide.items():
            found[f"{layer}.{name}.weight"] = drawn(*shape)
            found[f"{layer}.{name}.bias"] = drawn(shape[0])
        for name in ("layernorm_before", "layernorm_after"):
            found[f"{layer}.{name}.weight"] = drawn(8)
            found[f"{layer}.{name}.bias"] = drawn(8)
    return found


def save_torch(path: Path, tree: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a file as ``torch.save`` lays it out, without PyTorch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_: object) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    kind = type("FloatStorage", (), {"__module__": "torch"})
    torch.FloatStorage, torch._utils = kind, utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    stored: list[np.ndarray] = []

    class Stored:
        def __init__(self, place: int):
            self.place = place

    class Pickler(pickle.Pickler):
        def persistent_id(self, one: object) -> object:
            if isinstance(one, Stored):
                return ("storage", kind, str(one.place), "cpu", stored[one.place].size)
            return None

        def reducer_override(self, one: object) -> object:
            if not isinstance(one, np.ndarray):
                return NotImplemented
            stored.append(np.ascontiguousarray(one, np.float32))
            strides = tuple(step // 4 for step in stored[-1].strides)
            place = Stored(len(stored) - 1)
            hooks: dict = collections.OrderedDict()
            return _rebuild_tensor_v2, (place, 0, one.shape, strides, False, hooks)

    code = io.BytesIO()
    Pickler(code, protocol=2).dump(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code.getvalue())
        archive.writestr("archive/byteorder", "little")
        for place, array in enumerate(stored):
            archive.writestr(f"archive/data/{place}", array.tobytes())
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_file(vit_tensors(), tmp_path / "model.safetensors")
    return tmp_path


def loaded(place: Path, section: dict, outputs: int = 10, size: int = 8) -> pretrained.Loaded:
    model = make_model(section, outputs)
    example = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = pretrained.shapes_of(model, example, {})
    return pretrained.load({**section, "pretrained": str(place)}, *shapes)


def test_every_tensor_has_its_place(checkpoint: Path) -> None:
    tensors, found = vit_tensors(), loaded(checkpoint, VIT)
    assert found.record["new"] == [] and found.record["ignored"] == ["vit.pooler.dense.weight"]
    np.testing.assert_array_equal(
        found.params["layer_1/attention/query/kernel"],
        tensors["vit.layers.1.attention.q_proj.weight"].T,
    )
    assert found.record["tensors"] == len(tensors) - 1
    stacked = loaded(checkpoint, {**VIT, "scan_layers": True})
    np.testing.assert_array_equal(
        stacked.params["layers/mlp/up/kernel"][1], tensors["vit.layers.1.mlp.fc1.weight"].T
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"lora_rank": 2}, marks=pytest.mark.slow),
        pytest.param({"scan_layers": True}, marks=pytest.mark.slow),
        pytest.param(
            {"prune.criterion": "gradient", "prune.sparsity": 0.5}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_starts_from_the_weights(checkpoint: Path, tmp_path: Path, changes: dict) -> None:
    config = configs.override(
        CONFIG,
        {"model.pretrained": str(checkpoint), **{f"model.{k}": v for k, v in changes.items()}},
    )
    parts = Experiment.build(config)
    resolved = parts.config
    found = parts.pretrained()
    assert found is not None
    hparams = configs.hyperparameters(resolved)
    state = parts.init(0, hparams, (found.params, found.state))
    params = state.params["base"] if changes.get("lora_rank") else state.params
    np.testing.assert_allclose(params["norm"]["scale"], vit_tensors()["vit.layernorm.weight"])
    random = parts.init(0, hparams).params
    random = random["base"] if changes.get("lora_rank") else random
    assert not np.allclose(random["norm"]["scale"], params["norm"]["scale"])


@pytest.mark.slow
def test_a_run_says_what_it_began_with_and_notices_a_changed_file(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = configs.override(CONFIG, {"model.pretrained": str(checkpoint)})
    result = fit(config, tmp_path / "run")
    record = json.loads((tmp_path / "run/pretrained.json").read_text())
    assert record["family"] == "ViT" and len(record["sha256"]) == 64
    (tmp_path / "run/result.json").unlink()
    save_file({**vit_tensors(), "vit.layernorm.bias": np.ones(8, np.float32)},
              checkpoint / "model.safetensors")  # fmt: skip
    with pytest.raises(WorkdirError, match="began with other weights"):
        fit(config, tmp_path / "run")
    assert result.status == "done"


def test_every_member_of_a_population_starts_from_them(checkpoint: Path) -> None:
    config = configs.override(CONFIG, {"model.pretrained": str(checkpoint)})
    (shared,) = structure.build(config)
    trials = [Trial(0, 0, None, {}), Trial(1, 5, None, {"optim.learning_rate": 1e-7})]
    made = Population(shared, trials, width=2, execution_mode="scan", cache=Cache())
    scale = made.states.params["norm"]["scale"]
    np.testing.assert_allclose(scale, np.stack([vit_tensors()["vit.layernorm.weight"]] * 2))


def test_a_pytorch_file_holds_the_same(tmp_path: Path, monkeypatch) -> None:
    tensors = vit_tensors()
    path = save_torch(tmp_path / "model.pt", {"state_dict": tensors, "epoch": 3}, monkeypatch)
    read = files.read(path).arrays
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)


def test_a_head_of_another_width_is_new(checkpoint: Path) -> None:
    found = loaded(checkpoint, VIT, outputs=3)
    assert found.record["new"] == ["head/outputs/bias", "head/outputs/kernel"]
    assert not any(path.startswith("head/") for path in found.params)


def test_parts_of_a_model_are_read_by_their_index(tmp_path: Path) -> None:
    tensors = vit_tensors()
    names = list(tensors)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, tmp_path / file)
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert set(files.read(tmp_path).arrays) == set(tensors)
    path.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(ConfigError, match="is no file here"):
        files.read(tmp_path)


# --- what is refused ------------------------------------------------------------------------------


class Harmful:
    """What a pickle would run if it were loaded as pickles are."""

    def __reduce__(self) -> object:
        return exec, ("import pathlib; pathlib.Path('HARM').write_text('')",)


def test_a_pickle_that_would_run_code_runs_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Harmful()}))
    with pytest.raises(ConfigError, match=r"builtins\.exec, which no tensor needs; it was not"):
        files.read(path)
    assert not (tmp_path / "HARM").exists()
    path.write_bytes(pickle.dumps({"weight": Harmful()}))
    with pytest.raises(ConfigError, match=r"builtins\.exec, which no tensor needs; it was not"):
        files.read(path)
    assert not (tmp_path / "HARM").exists()


def test_a_header_of_a_false_length_is_told(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes((10**12).to_bytes(8, "little") + whole[8:])
    with pytest.raises(ConfigError, match="says that its header has 1,000,000,000,000 bytes"):
        files.read(path)
    path.write_bytes(whole[:-10])
    with pytest.raises(ConfigError, match="It was cut off"):
        files.read(path)


def test_a_checkpoint_of_another_architecture_is_told(checkpoint: Path) -> None:
    section = {"name": "resnet", "stem": "cifar", "stage_sizes": (1, 1), "features": (4, 8)}
    with pytest.raises(ConfigError, match=r"no checkpoint of model\.name 'resnet'") as error:
        loaded(checkpoint, section)
    assert "It looks like a checkpoint of 'vit'" in str(error.value)
    with pytest.raises(ConfigError, match=r"no table of names for model\.name 'mlp'"):
        loaded(checkpoint, {"name": "mlp"})


def test_an_image_size_that_does_not_fit_is_told(checkpoint: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"positions/embedding: \(10, 8\) here, \(5, 8\)"
    ) as error:
        loaded(checkpoint, VIT, size=12)
    assert "image size" in str(error.value)


def test_missing_and_left_over_tensors_are_listed(checkpoint: Path) -> None:
    tensors = vit_tensors()
    tensors["vit.extra"] = np.zeros(1, np.float32)
    del tensors["vit.layernorm.bias"]
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(ConfigError) as error:
        loaded(checkpoint, VIT)
    text = str(error.value)
    assert "norm/bias (vit.layernorm.bias)" in text and "vit.extra" in text
    with pytest.raises(ConfigError, match="and 7 more"):
        loaded(checkpoint, {**VIT, "num_layers": 3})


def test_a_config_that_can_not_start_fails_before_anything_is_made(tmp_path: Path) -> None:
    config = configs.override(CONFIG, {"model.pretrained": str(tmp_path / "nothing")})
    with pytest.raises(ConfigError, match=r"model\.pretrained: there is no"):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match=r"holds none of model\.safetensors"):
        fit(config, tmp_path / "run")


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), kind=st.sampled_from(["st", "pt"]))
def test_damaged_bytes_are_told_or_read(place, value, kind, tmp_path_factory, monkeypatch) -> None:
    folder = tmp_path_factory.getbasetemp()
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    path = folder / ("x.safetensors" if kind == "st" else "x.pt")
    if kind == "st":
        save_file(tensors, path)
    else:
        save_torch(path, tensors, monkeypatch)
        monkeypatch.undo()
    data = bytearray(path.read_bytes())
    data[place % len(data)] = value
    path.write_bytes(bytes(data))
    try:
        found = files.read(path).arrays
    except UserError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())
