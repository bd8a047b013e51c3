"""Examples with several named inputs, from arrays to batches."""

from __future__ import annotations

import numpy as np
import pytest

from jdlopt.data import feed, named, preprocess
from jdlopt.data.describe import describe
from jdlopt.data.given import given_inputs, open_given
from jdlopt.data.inputs import read_inputs
from jdlopt.data.spec import DataSpec
from jdlopt.errors import DataError

SIZE = 60


def inputs_of(size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "photo": rng.integers(0, 256, (size, 6, 5), dtype=np.uint8),
        "table": rng.normal(size=(size, 3)).astype(np.float32),
    }


class Items:
    """A sequence of examples, each by its index."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture
def dataset():
    return open_given({"source": "made"}, (inputs_of(), np.arange(SIZE) % 3))


def test_inputs_stay_together_through_splits(dataset):
    given = inputs_of()
    assert {name: one.shape for name, one in dataset.spec.inputs.items()} == {
        "photo": (6, 5, 1),
        "table": (3,),
    }
    for split in ("train", "validation", "test"):
        inputs, targets = dataset.read(split)
        rows = dataset.parts[split][1]
        np.testing.assert_array_equal(inputs["photo"][..., 0], given["photo"][rows])
        np.testing.assert_array_equal(inputs["table"], given["table"][rows])
        np.testing.assert_array_equal(targets, rows % 3)
    assert dataset.nbytes("train") == dataset.sizes["train"] * (6 * 5 + 3 * 4 + 4)


def test_items_of_a_sequence_may_have_named_inputs(dataset):
    given = inputs_of()
    items = Items(({name: given[name][row] for name in given}, row % 3) for row in range(SIZE))
    read = open_given({"source": "made"}, items)
    for split in ("train", "test"):
        expected, found = dataset.read(split), read.read(split)
        for name in given:
            np.testing.assert_array_equal(found.inputs[name], expected.inputs[name])


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_and_memory_give_the_same_batches(dataset, workers):
    arrays, records = dataset.read("train"), dataset.records("train")
    batches = feed.stream(records, seed=3, batch_size=8, first_step=2, workers=workers)
    for step in (2, 3):
        chosen = feed.batch_examples(3, step, 8, len(records))[0]
        batch = next(batches)
        for name, values in arrays.inputs.items():
            np.testing.assert_array_equal(batch["inputs"][name], values[chosen])
    batches.close()
    rows = np.arange(32)
    padded = feed.padded(arrays.inputs, arrays.targets, 32, rows)
    for one, other in zip(padded, feed.padded_stream(records, 32, rows), strict=True):
        assert len(one["inputs"]["photo"]) == 32
        np.testing.assert_array_equal(one["weights"], other["weights"])
        for name in arrays.inputs:
            np.testing.assert_array_equal(one["inputs"][name], other["inputs"][name])


def test_each_input_is_preprocessed_by_its_kind(dataset):
    section = {"scale": "standard", "pca": 2, "resize": (3, 3)}
    recipes = preprocess.make_recipes(section, dataset.spec.inputs)
    assert {name: one.kind for name, one in recipes.items()} == {
        "photo": "image",
        "table": "table",
    }
    train = dataset.read("train").inputs
    state = {
        name: preprocess.fit_batches(one, lambda name=name: [train[name]])
        for name, one in recipes.items()
    }
    made = preprocess.apply(recipes, state, train)
    alone = preprocess.make_recipe({"scale": "standard", "pca": 2}, dataset.spec.inputs["table"])
    fitted = preprocess.fit_batches(alone, lambda: [train["table"]])
    np.testing.assert_allclose(made["table"], preprocess.apply(alone, fitted, train["table"]))
    shapes = preprocess.output_shape(recipes, state, dataset.spec.inputs)
    assert shapes == {"photo": ((3, 3, 1), "float32"), "table": ((2,), "float32")}
    assert {name: values.shape[1:] for name, values in made.items()} == {
        name: one.shape for name, one in shapes.items()
    }


def test_a_spec_keeps_its_inputs(dataset):
    assert DataSpec.from_dict(dataset.spec.to_dict()) == dataset.spec
    described = describe(dataset)
    assert described["splits"]["train"]["inputs"]["photo"]["max"] <= 255


def test_new_inputs_are_arrays_of_the_same_names(dataset, tmp_path):
    new = inputs_of(4, seed=1)
    found = given_inputs({**new, "other": [1]}, dataset.spec.inputs)
    np.testing.assert_array_equal(found.inputs["photo"][..., 0], new["photo"])
    np.savez(tmp_path / "new.npz", **new)
    read = read_inputs(tmp_path / "new.npz", dataset.spec.inputs)
    assert read.ids == found.ids == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(read.inputs["table"], new["table"])


def test_what_does_not_fit_is_named(dataset):
    new = inputs_of(4)
    with pytest.raises(DataError, match="lacks photo of the inputs"):
        given_inputs({"table": new["table"]}, dataset.spec.inputs)
    with pytest.raises(DataError, match="as many examples each; found photo 4, table 2"):
        given_inputs({**new, "table": new["table"][:2]}, dataset.spec.inputs)
    with pytest.raises(DataError, match="expected a dict of arrays"):
        given_inputs(new["table"], dataset.spec.inputs)
    with pytest.raises(DataError, match="inputs 'photo': there are 4 inputs and 5 targets"):
        open_given({"source": "made"}, (new, np.arange(5)))
    with pytest.raises(DataError, match="has several inputs"):
        _ = dataset.spec.input


def test_one_input_needs_no_name():
    assert named.by_name(3) == {"input": 3}
    assert named.joined([[1, 2], [3]]).tolist() == [1, 2, 3]
