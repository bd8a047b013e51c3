"""`jdlopt data check` and `jdlopt data show` as a person meets them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from outline import check as check_page
from PIL import Image

from jdlopt import cli
from jdlopt.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    """A folder with a damaged table, a sound one, and configs of both."""
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, 240)
    sound = pd.DataFrame(
        {
            "height": 2.0 * label + draw.normal(scale=0.5, size=240),
            "weight": draw.normal(size=240),
            "label": np.array(["no", "yes"])[label],
        }
    )
    sound.to_csv(tmp_path / "sound.csv", index=False)
    damaged = sound.astype({"weight": object})
    damaged.loc[[4, 7], "weight"] = ["12,5x", None]
    damaged = damaged.rename(columns={"height": "he\x1b[31might"})
    damaged.to_csv(tmp_path / "damaged.csv", index=False)
    for name in ("sound", "damaged"):
        config = {"data": {"source": str(tmp_path / f"{name}.csv"), "target": "label"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    return tmp_path


def test_a_damaged_file_gives_a_table_and_lines_for_the_config(place, capsys):
    assert main(["data", "check", str(place / "damaged.csv"), "--target=label"]) == cli.DONE
    said = capsys.readouterr()
    assert said.out == ""
    for words in (
        "data.preprocess.missing='median'\n",
        "data.on_bad='skip'\n",
        "error: missing",
        "weight",
        "rows of the test split too",
    ):
        assert words in said.err
    assert "\x1b[31might" not in said.err
    assert not list(place.glob("*.html"))


def test_json_is_one_object_and_the_page_is_written(place, capsys):
    words = ["data", "check", f"--config={place / 'damaged.json'}", f"--workdir={place / 'out'}"]
    assert main([*words, "--json"]) == cli.DONE
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    kinds = {one["kind"]: one for one in found["findings"]}
    assert kinds["text_in_numbers"]["parts"] == [
        {"name": "weight", "count": 1, "rows": [5], "detail": "the first is '12,5x'"}
    ]
    assert kinds["missing"]["parts"][0]["rows"] == [8]
    assert found["counts"]["error"] == sum(one["severity"] == "error" for one in kinds.values())
    assert found["page"] == str(place / "out" / "data_check.html")
    made = check_page(Path(found["page"]).read_text("utf-8"))
    assert "can't be opened" in made.words and "12,5x" in made.words


def test_a_config_that_sees_to_it_has_no_error_left(place, capsys):
    words = ["data", "check", f"--config={place / 'damaged.json'}", "--json"]
    words += ["--config.data.on_bad=skip", "--config.data.preprocess.missing=median"]
    assert main(words) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["error"] == 0
    assert {"missing", "text_in_numbers"} <= {one["kind"] for one in found["findings"]}


def test_a_sound_file_says_so(place, capsys):
    words = ["data", "check", str(place / "sound.csv"), "--target=label", "--without-test"]
    assert main([*words, "--json"]) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert [one for one in found["findings"] if one["severity"] != "note"] == []
    assert any("not looked at" in sentence for sentence in found["looked_at"])


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        ([], ["FILE or --config", "neither"]),
        (["@/sound.csv", "--config=@/sound.json"], ["both"]),
        (["@/sound.csv", "--target=lable"], ["data.target", "Did you mean 'label'"]),
        (["@/sound.csv", "--target=label", "--ignore=wieght"], ["Did you mean 'weight'"]),
        (["--config=@/sound.json", "--target=label"], ["--target", "--config.data.target"]),
        (["@/sound.csv", "--config.seed=1"], ["--config.seed", "no --config"]),
        (["@/nothing.csv"], ["nothing.csv", "no file"]),
        (["@/sound.csv", "--workdir=@/sound.csv/out"], ["data_check.html"]),
    ],
)
def test_wrong_words_are_one_message(place, capsys, words, telling):
    given = [word.replace("@", str(place)) for word in words]
    assert main(["data", "check", *given]) == cli.WRONG_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    for word in telling:
        assert word in said.err


def test_show_draws_a_picture_and_tells_the_changes(place, capsys):
    output = place / "grid.png"
    words = ["data", "show", f"--config={place / 'sound.json'}", f"--output={output}"]
    words += ["--examples=3", "--config.data.augment.jitter=0.5"]
    assert main([*words, "--json"]) == cli.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == str(output)
    [only] = found["inputs"]
    raw, prepared, jitter = only["columns"]
    assert raw["change"] is None and prepared["label"] == "preprocessed"
    # the mean absolute value of a normal with this standard deviation
    assert jitter["change"] == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.1)
    with Image.open(output) as picture:
        assert picture.format == "PNG" and picture.width > 3 * 160
    assert main(words) == cli.DONE
    said = capsys.readouterr().err
    assert "jitter 0.5" in said and str(output) in said
    assert not list(place.glob(".*"))


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (["--output=@/grid.jpg"], ["--output", ".png"]),
        (["--output=@/none/grid.png"], ["--output", "no such folder"]),
        (["--output=@/grid.png", "--examples=0"], ["--examples", "[1, 64]"]),
        (["--output=@/grid.png", "--config.data.augment.rotate=9"], ["data.augment.rotate"]),
        (["--output=@/grid.png", "--config.data.augment.rotat=9"], ["Did you mean 'rotate'"]),
    ],
)
def test_what_can_not_be_shown_is_said(place, capsys, words, telling):
    given = [word.replace("@", str(place)) for word in words]
    config = f"--config={place / 'sound.json'}"
    assert main(["data", "show", config, *given]) == cli.WRONG_INPUT
    said = capsys.readouterr()
    for word in telling:
        assert word in said.err
    assert not list(place.glob("grid*"))


def test_help_of_both_imports_nothing_heavy():
    ask = (
        "import sys\nfrom jdlopt.cli import main\n"
        "for verb in ('check', 'show'):\n"
        "    try:\n        main(['data', verb, '--help'])\n"
        "    except SystemExit as end:\n        assert end.code == 0\n"
        "print(sorted({'jax', 'numpy', 'pandas', 'sklearn', 'PIL', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for word in ("--without-test", "--workdir", "--target", "--output", "--examples"):
        assert word in done.stdout


# --- what the benchmark plants --------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(
        "measure_check", ROOT / "benchmarks" / "measure_check.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_that_the_benchmark_plants_is_found(benchmark, tmp_path):
    path = tmp_path / "damaged.csv"
    planted = benchmark.plant(path, rows=1500, columns=8, seed=1)
    check = benchmark.check_source({"source": str(path), "target": "label"})
    told = benchmark.told(check)
    for kind in benchmark.KINDS:
        assert len(planted[kind]) >= 80
        assert told[kind] == planted[kind], kind
    # one label in fifty is flipped; of those that are doubted, many more
    doubted = told["label_noise"]
    assert len(doubted & planted["label_noise"]) >= 0.25 * len(doubted) > 2


def test_the_damaged_table_can_be_preprocessed(benchmark, tmp_path):
    path = tmp_path / "damaged.csv"
    planted = benchmark.plant(path, rows=1500, columns=8, seed=1)
    made = benchmark.preprocess(path)
    skipped = sum(len(planted[k]) for k in ("text_in_numbers", "infinite", "wrong_size"))
    assert sum(made["skipped"].values()) == skipped
    assert made["largest"] < 20  # no outlier of a million is left
