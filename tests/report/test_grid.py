"""Samples of every kind of input, drawn: what is compared, and what is in the picture."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixed_tables import make_table
from PIL import Image

from jdlopt.errors import ConfigError
from jdlopt.report import grid, samples
from jdlopt.report.columns import row_of
from jdlopt.report.samples import Column, Samples
from jdlopt.train.schema import resolve_data


def made(values, prepared=None, kind="image", **more):
    prepared = values.astype(np.float32) if prepared is None else prepared
    columns = (Column("raw", values, "raw"), Column("preprocessed", prepared, "model"))
    return [Samples(columns, tuple(f"class {i}" for i in range(len(values))), kind, **more)]


def cell(image, column, row, size=(grid.SIDE, grid.SIDE)):
    x = grid.LEFT + grid.GAP + column * (size[0] + grid.GAP)
    y = grid.TOP + grid.GAP + row * (size[1] + grid.GAP)
    return np.asarray(image)[y : y + size[1], x : x + size[0]]


def test_pixels_are_where_they_belong():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0] = 255
    image = grid.draw(made(images), 3)
    for row in range(3):
        expected = images[row].repeat(12, axis=0).repeat(12, axis=1)
        np.testing.assert_array_equal(cell(image, 0, row), expected)


def test_fewer_rows_than_asked_and_more_than_there_are():
    images = np.zeros((5, 8, 8, 1), np.uint8)
    heights = {count: grid.draw(made(images), count).height for count in (1, 5, 50)}
    assert heights[5] == heights[50] == grid.TOP + grid.GAP + 5 * (grid.SIDE + grid.GAP)
    assert heights[1] == grid.TOP + grid.GAP + grid.SIDE + grid.GAP


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((8, 8, 1), "image"), ((5, 40, 3), "image"), ((300, 4, 2), "image"), ((50,), "table"),
     ((6,), "table"), ((40, 3), "sequence"), ((40, 20), "sequence"), ((1, 2), "sequence"),
     ((4000,), "audio"), ((4, 4, 4, 3), "sequence")],
)  # fmt: skip
def test_every_shape_is_drawn(shape, kind):
    values = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    values.flat[0], values.flat[-1] = np.nan, np.inf
    if len(shape) > 3:
        values = values.reshape(2, -1)
    picture = Image.open(io.BytesIO(grid.png(made(values, kind=kind), 2)))
    assert picture.format == "PNG" and picture.size[0] > grid.LEFT
    nothing = np.full((2, *shape), np.nan, np.float32).reshape(values.shape)
    assert np.asarray(grid.draw(made(nothing, kind=kind), 2)).std() > 0


def test_columns_that_can_be_compared_share_their_range():
    low = np.full((1, 40), -1.0, np.float32)
    low[0, 0] = 1.0
    half = np.zeros((1, 40), np.float32)
    pair = Samples((Column("raw", low, "raw"), Column("jitter 1", half, "raw")), ("a",), "sequence")
    ink = cell(grid.draw([pair], 1), 1, 0, (grid.WIDE, grid.SIDE))
    rows = np.flatnonzero((ink == grid.INK).all(axis=-1).any(axis=1))
    assert abs(rows.mean() - grid.SIDE / 2) < 2  # 0 lies halfway between -1 and 1


def test_dark_bytes_are_shown_bright():
    images = np.zeros((1, 8, 8, 1), np.uint8)
    images[0, :4] = 16
    shown = cell(grid.draw(made(images), 1), 0, 0)
    assert shown[0, 0, 0] == 255 and shown[-1, 0, 0] == 0


def test_bars_start_at_zero_and_what_is_missing_is_grey():
    values = np.array([[1.0, -1.0, np.nan, 0.5]], np.float32)
    one = Samples((Column("preprocessed", values, "model"),), ("a",), "table")
    shown = cell(grid.draw([one], 1), 0, 0, (grid.WIDE, grid.SIDE))
    blue = (shown == grid.INK).all(axis=-1)
    quarter = grid.WIDE // 4
    heights = [blue[:, i * quarter + 10].sum() for i in range(4)]
    assert abs(heights[0] - heights[1]) <= 2 and heights[2] == 0
    assert abs(heights[3] - heights[0] / 2) <= 2
    assert (shown[50, 2 * quarter + 10] == (217, 217, 212)).all()


def test_texts_are_words():
    ids = np.array([[2, 3, 0, 0], [3, 1, 2, 9]], np.int32)
    tokens = ("", "?", "hello", "\x1b[31m\u202e")
    picture = grid.draw(made(ids, ids, "text", tokens=tokens), 2)
    cells = [cell(picture, 0, row, (grid.WIDE, grid.SIDE)) for row in range(2)]
    assert all(one.std() > 0 for one in cells) and not np.array_equal(*cells)


def test_a_table_of_any_width_is_written_out_by_name_and_value():
    names = tuple(f"column {i}" for i in range(40))
    values = np.arange(80, dtype=np.float32).reshape(2, 40) % 3
    categories = {"column 1": ("no", "yes")}
    [one] = made(values, kind="table", names=names, categories=categories)
    assert row_of(values[0], names, categories)[:3] == ["0", "no", "2"]
    values[0, :2] = np.nan, 0
    assert row_of(values[0], names, categories)[:2] == ["–", "(new)"]
    # what was taken off, so that float32 tells values apart, is there again
    offsets = (0, 0, 1_700_000_000, *[0] * 37)
    assert row_of(values[0], names, categories, offsets)[2] == "1,700,000,002"
    height = grid.draw([one], 1).height - grid.TOP - 2 * grid.GAP
    assert height == 14 * (grid.MOST_NAMED + 1) + 6  # and a line that counts the others


def test_several_inputs_stand_side_by_side(tmp_path):
    fields = section(
        str(make_table(tmp_path, 60)), target="size", augment={"rotate": 20.0, "token_dropout": 0.3}
    )
    table, photo, note = taken = samples.take(fields)
    assert [one.input for one in taken] == ["table", "photo", "note"]
    assert [len(one.columns) for one in taken] == [2, 3, 3]
    assert table.names == ("age", "colour") and note.columns[2].label == "token_dropout 0.3"
    assert photo.columns[2].change > 0 and table.labels == note.labels
    shown = grid.draw(taken, 2)
    assert shown.width > grid.LEFT + grid.NAMED_WIDE + 5 * grid.SIDE
    first = table.columns[0].values[0]
    assert row_of(first, table.names, table.categories, table.offsets)[1] in ("blue", "white")


@given(st.text(max_size=30), st.integers(1, 30))
def test_nothing_unprintable_is_printed(text, most):
    shown = grid.printable(text, most)
    assert shown.isprintable() and len(shown) <= most
    if text.isprintable() and len(text) <= most:
        assert shown == text


def test_labels_that_are_too_long_stay_in_their_column():
    images = np.full((1, 8, 8, 1), 255, np.uint8)
    columns = tuple(Column("w" * 60, images, "raw") for _ in range(2))
    picture = grid.draw([Samples(columns, ("x" * 200,), "image")], 1)
    shown = np.asarray(picture)
    assert (shown[: grid.TOP, grid.LEFT + grid.SIDE + grid.GAP + 5 :] < 200).any()
    assert (shown[:, -2:] == 255).all()


# --- samples of a dataset -------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (60, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "i.npz", x=pixels, y=np.arange(60) % 2)
    return str(tmp_path / "i.npz")


def section(source, **more):
    return resolve_data({"data": {"source": source, **more}})


def test_the_only_input_may_have_a_name(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1)).astype(np.uint8)
    own = types.ModuleType("own_pictures")
    own.named = lambda: ({"picture": pixels}, np.arange(60) % 2)
    monkeypatch.setitem(sys.modules, "own_pictures", own)
    [taken] = samples.take(section("own_pictures:named", augment={"flip": 1.0}))
    columns = {column.label: column.values for column in taken.columns}
    raw = columns["raw"].astype(np.float32) / 255
    np.testing.assert_allclose(columns["flip 1"], raw[:, :, ::-1], atol=1e-6)


def test_each_augmentation_has_a_column_of_its_own(images):
    augment = {"flip": 1.0, "noise": 0.2, "mixup": 0.4, "crop": 0.0, "alternating_flip": True}
    [taken] = samples.take(section(images, augment=augment, preprocess={"scale": "standard"}))
    columns = {column.label: column for column in taken.columns}
    assert list(columns)[:2] == ["raw", "preprocessed"]
    assert set(list(columns)[2:]) == {
        "flip 1", "noise 0.2", "mixup 0.4", "crop 0", "alternating_flip",
    }  # fmt: skip
    raw = columns["raw"].values.astype(np.float32) / 255
    np.testing.assert_allclose(columns["flip 1"].values, raw[:, :, ::-1], atol=1e-6)
    assert columns["crop 0"].change == 0
    assert columns["flip 1"].change == pytest.approx(np.abs(raw - raw[:, :, ::-1]).mean(), rel=1e-4)
    alternating = columns["alternating_flip"].values
    flipped = [not np.allclose(a, b, atol=1e-6) for a, b in zip(alternating, raw)]
    assert 0 < sum(flipped) < len(flipped)
    prepared = columns["preprocessed"].values
    mean, std = raw.mean(), raw.std()
    np.testing.assert_allclose(prepared, (raw - mean) / std, rtol=2e-2, atol=2e-2)
    mixed = columns["mixup 0.4"]
    assert (mixed.space, columns["noise 0.2"].space) == ("model", "raw")
    assert mixed.change == pytest.approx(np.abs(mixed.values - prepared).mean(), rel=1e-5)
    assert set(taken.labels) == {"0", "1"} and len(taken.labels) == 43


@pytest.mark.slow
def test_all_that_fit_are_shown_when_asked(images):
    from jdlopt.data import augment

    [taken] = samples.take(section(images), everything=True)
    shown = [column.label.split()[0] for column in taken.columns[2:]]
    assert shown == list(augment.fitting(augment.Inputs((6, 6, 1), "uint8", "image")))
    assert all(column.strength > 0 for column in taken.columns[2:])
    grid.png([taken], 2)


def test_what_does_not_fit_is_refused(images):
    with pytest.raises(ConfigError, match=r"data\.augment\.time_warp"):
        samples.take(section(images, augment={"time_warp": 0.2}))


def test_the_test_split_is_not_shown(images):
    [taken] = samples.take(section(images))
    from jdlopt.data import open_dataset

    dataset = open_dataset({"source": images})
    held = {one.tobytes() for one in dataset.read("test").inputs}
    assert not held & {one.tobytes() for one in taken.columns[0].values}
