"""Tags of words end to end: trained, measured, predicted for texts, and shown."""

from __future__ import annotations

import json
import random

import pytest

from jdlopt.cli import main
from jdlopt.data.tags import names_of
from jdlopt.errors import UserError
from jdlopt.tasks import TASKS
from jdlopt.tasks.token_classification import entities_in
from jdlopt.train.ensemble import Member, decided
from jdlopt.train.experiment import Experiment
from jdlopt.train.loop import fit
from jdlopt.train.predictions import as_columns, write_predictions
from jdlopt.train.state import Weights

NOTHING = Weights({}, {}, {}, {})
PEOPLE, PLACES = ("Ann", "Bob", "Cleo"), ("Berlin", "New York", "Rome")


def sentence(drawn):
    """Words and tags of somebody somewhere."""
    who, place = drawn.choice(PEOPLE), drawn.choice(PLACES).split()
    words = [who, *drawn.choice((["lives", "in"], ["is", "not", "in"])), *place, "."]
    tags = ["O"] * len(words)
    tags[0] = "B-PER"
    tags[-1 - len(place) : -1] = ["B-LOC", *["I-LOC"] * (len(place) - 1)]
    return words, tags


def config(folder):
    """Returns a config of made sentences, which are written to a folder."""
    drawn = random.Random(0)
    made = [sentence(drawn) for _ in range(120)]
    blocks = ("\n".join(f"{word}\t{tag}" for word, tag in zip(*one, strict=True)) for one in made)
    (folder / "made.conll").write_text("\n\n".join(blocks), "utf-8")
    return {
        "data": {
            "source": str(folder / "made.conll"), "batch_size": 16,
            "text": {"vocab_size": 60, "max_tokens": 16},
        },
        "model": {"name": "gru", "features": 16, "bidirectional": True},
        "optim": {"name": "adam", "learning_rate": 0.03},
        "train": {"epochs": 3, "tensorboard": False},
        "mesh": {"data": 1},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    return fit(config(folder), folder / "run")


@pytest.mark.slow
def test_a_run_learns_to_tag_and_is_measured_by_entities(run):
    task, metrics = TASKS["token_classification"], run.metrics
    assert run.record["best"]["metric"] == task.monitor == "validation/entity_f1"
    assert metrics["test/entity_f1"] == metrics["test/token_accuracy"] == 1
    assert metrics["test/entity_f1_per_kind"] == [1, 1]
    assert run.experiment.spec.class_names == names_of(("LOC", "PER"))


@pytest.mark.slow
def test_texts_get_entities_with_their_places(run, tmp_path, capsys):
    whole = "Bob is not in New York."
    (tmp_path / "new.txt").write_text(f"{whole}\n\nCleo lives in Rome .\n", "utf-8")
    words = ["predict", str(run.workdir), f"--input={tmp_path / 'new.txt'}", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prediction"] == ["Bob (PER), New York (LOC)", "", "Cleo (PER), Rome (LOC)"]
    for entity, expected in zip(found["entities"][0], ("Bob", "New York"), strict=True):
        assert whole[entity["start"] : entity["end"]] == entity["text"] == expected
        assert 0.5 < entity["probability"] <= 1
    assert main([*words, "--new-tokens=3"]) == 2  # there is nothing to continue
    given = run.predict([["Ann", "lives", "in", "Rome", "."]])
    assert as_columns(given)["entities"][0][1]["start"] == 13
    write_predictions(given, tmp_path / "out.csv")
    row = (tmp_path / "out.csv").read_text("utf-8").splitlines()[1]
    assert '""kind"": ""PER""' in row
    tags = ["B-PER", "O", "O", "B-LOC", "O"]
    score = run.evaluate(data=([["Ann", "lives", "in", "Rome", "."]], [tags]))
    assert score["entity_f1"] == 1


@pytest.mark.slow
def test_the_report_marks_entities(run):
    assert main(["report", str(run.workdir)]) == 0
    page = (run.workdir / "report.html").read_text("utf-8")
    assert "<mark>" in page and "Entities of each kind" in page and "word 1" in page


def test_runs_that_cut_words_in_other_ways_are_not_averaged(tmp_path):
    members = []
    for size in (60, 40):
        made = config(tmp_path)
        made["data"]["text"]["vocab_size"] = size
        experiment = Experiment.build(made, check=False)
        members.append(Member(tmp_path / f"run{size}", experiment, NOTHING, 0))
    assert decided([members[0]] * 2, None, None) == members[0].experiment.spec
    with pytest.raises(UserError, match=r"run60 and .*run40 cut inputs into other positions"):
        decided(members, None, None)


def test_entities_begin_as_conlleval_has_them():
    def cut(*codes):
        return [tuple(one) for one in entities_in(codes)]

    assert cut(2, 2, 0, 4, 3, 1, 2, 4) == [(0, 0, 1), (1, 3, 3), (1, 4, 4), (0, 5, 6), (1, 7, 7)]
    assert cut() == cut(0, 0) == []
