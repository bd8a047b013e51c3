"""The report of a study: whole, safe against what is in it, and made of damaged ones if it can."""

import json

import numpy as np
import pytest
from outline import check
from samples import HOSTILE, a_study, a_trial, write_study

from jdlopt.errors import WorkdirError
from jdlopt.report import hyperparameters, importance, study, write_report


def report(folder):
    return check(write_report(folder).read_text("utf-8"))


def titles(page):
    return [words for level, words in page.headings if level == 2]


def test_everything_that_a_study_has_is_shown(make_study):
    page = report(make_study())
    assert titles(page) == [
        "Findings", "Best trials", "Next steps", "Training curves", "Hyperparameter effects",
        "Hyperparameter importance", "Infeasible trials", "Execution",
    ]  # fmt: skip
    plots = page.plots()
    assert {f"effect-{index}" for index in range(5)} <= set(plots)
    assert {"isolation-0", "parallel", "importances", "curves-0", "curves-1"} <= set(plots)
    # both kinds of curves, of the best few
    names = [line["name"] for line in plots["curves-0"]["data"]]
    assert len(names) == 2 * study.CURVES
    assert sum("training" in name for name in names) == study.CURVES


def test_names_from_outside_stay_text(make_study):
    folder = make_study(status=HOSTILE)
    text = write_report(folder).read_text("utf-8")
    page = check(text)
    assert "onerror" not in {name for _, attrs in page.elements for name in attrs}
    assert not [attrs for tag, attrs in page.elements if tag == "img"]
    assert page.words.count(HOSTILE) > 3  # and is shown as what it is
    for spec in page.plots().values():
        for where in (*spec["data"], *spec["layout"].get("annotations", ())):
            for value in where.get("text", "") if "x" in where else ():
                assert "<" not in str(value)  # a figure's text is markup as well


def test_each_trial_is_in_the_axis_plots_and_infeasible_ones_lie_beyond_the_worst(make_study):
    folder = make_study(30)
    trials = json.loads((folder / "study.json").read_text())["trials"]
    done, bad = report(folder).plots()["effect-0"]["data"]
    assert len(done["x"]) == sum(t["state"] in ("done", "pruned") for t in trials)
    assert len(bad["x"]) == sum(t["state"] == "infeasible" for t in trials) > 0
    assert max(bad["y"]) < min(done["y"])
    assert done["marker"]["symbol"].count("star") == 1
    assert "circle-open" in done["marker"]["symbol"]


def test_the_base_config_is_marked_and_shown_beside_the_best(make_study):
    folder = make_study(30)
    record = json.loads((folder / "study.json").read_text())
    up = record["objectives"][0]["direction"] == "maximize"
    done = hyperparameters.finished(record["trials"])
    base = sorted(done, key=lambda t: t["values"][0], reverse=up)[study.SHOWN + 1]
    base["origin"] = "base"
    row = {"origin": "base", "values": {}, "outside": {}, "trial": base["number"]}
    record["enqueued"] = [row]
    (folder / "study.json").write_text(json.dumps(record))
    page = report(folder)
    assert page.plots()["effect-0"]["data"][0]["marker"]["symbol"].count("diamond") == 1
    assert f"is better than the base config, trial {base['number']}" in page.words
    assert f"The best {study.SHOWN} trials, and the base config" in page.words


def test_where_lower_is_better_infeasible_trials_lie_at_the_top():
    trials = [a_trial(n, 1, "infeasible" if n == 3 else "done") for n in range(12)]
    row = a_study(trials)["space"][0]
    done, bad = hyperparameters.effect("a", row, trials, "validation/loss", False, 0).data
    assert min(bad["y"]) > max(done["y"])


def test_one_outlier_does_not_hide_the_others():
    trials = [a_trial(n) for n in range(20)]
    trials[7]["values"] = [1e6]
    row = a_study(trials)["space"][0]
    figure = hyperparameters.effect("a", row, trials, "validation/loss", False, 0)
    low, high = figure.layout["yaxis"]["range"]
    assert high - low < 10
    assert "triangle-up" in figure.data[0]["marker"]["symbol"]


def test_isolation_is_the_best_over_everything_else(make_study):
    folder = make_study(24)
    trials = json.loads((folder / "study.json").read_text())["trials"]
    _, best = report(folder).plots()["isolation-0"]["data"]
    for place, choice in enumerate(("relu", HOSTILE)):
        expected = max(
            t["values"][0]
            for t in trials
            if t["state"] == "done" and t["params"]["model.activation"] == choice
        )
        assert best["y"][best["x"].index(place)] == pytest.approx(expected, rel=1e-4)


def test_a_copied_config_differs_from_the_best_one_by_its_params_alone(make_study):
    folder = make_study(40)
    text = (folder / "study.json").read_text()
    trials = {t["number"]: t for t in json.loads(text)["trials"]}
    best = json.loads((folder / "best_config.json").read_text())
    base = study._base(json.loads(text), folder)
    made = {n: study._config(base, t) for n, t in trials.items() if t["state"] == "done"}
    whole = {n: json.loads(config) for n, config in made.items() if config is not None}
    assert len(whole) > 3
    for number, config in whole.items():
        for key, value in trials[number]["params"].items():
            section, name = key.split(".")
            assert config[section][name] == value
        assert config["data"] == best["data"]
    # a trial with other keys than the best one has: its config can't be made of the best one's
    assert any(config is None for config in made.values())


def test_copied_flags_give_a_shell_the_values_back():
    import shlex

    from jdlopt.cli import split_overrides

    trial = {"params": {"optim.learning_rate": 1e-3, "model.features": [16], "model.name": HOSTILE}}
    rest, found = split_overrides(shlex.split(study._flags(trial)))
    assert rest == []
    expected = {"optim.learning_rate": "0.001", "model.features": "16,", "model.name": HOSTILE}
    assert found == expected


def test_several_objectives_have_fronts_and_the_front_comes_first(make_study):
    folder = make_study(24, objectives=3)
    page = report(folder)
    plots = page.plots()
    assert {"pareto-1", "pareto-2"} <= set(plots) and "Pareto front" in titles(page)
    front = json.loads((folder / "study.json").read_text())["pareto"]
    _, marked = plots["pareto-1"]["data"]
    assert len(marked["x"]) == len(front)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_study_that_has_hardly_begun_has_a_report(tmp_path, count):
    trials = [a_trial(n, 1, "running") for n in range(count)]
    page = report(write_study(tmp_path / "s", {**a_study(trials), "status": "running"}))
    assert "No trial has finished" in page.words and "not finished" in page.words
    trials += [a_trial(9)]
    page = report(write_study(tmp_path / "t", {**a_study(trials), "status": "interrupted"}))
    assert "Best trials" in titles(page)


def test_a_study_of_infeasible_trials_alone_has_a_report(tmp_path):
    trials = [a_trial(n, 1, "infeasible") for n in range(9)]
    page = report(write_study(tmp_path / "s", a_study(trials)))
    assert "Infeasible trials" in titles(page)
    assert len(page.plots()["effect-0"]["data"][1]["x"]) == 9


def test_equal_trials_and_a_single_value_have_a_report(tmp_path):
    trials = [a_trial(n) for n in range(12)]
    for trial in trials:
        trial["values"] = [0.5]
    page = report(write_study(tmp_path / "s", a_study(trials)))
    assert "All trials have the same value" in page.words
    assert "importances" not in page.plots()


def test_thousands_of_trials_stay_under_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "importances", lambda _: ({}, "left out"))
    trials = [a_trial(n) for n in range(4000)]
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(a_study(trials)))
    page = report(folder)
    assert len(page.plots()["effect-0"]["data"][0]["x"]) == hyperparameters.POINTS
    best = max(trials, key=lambda t: t["values"][0])
    assert "star" in page.plots()["effect-0"]["data"][0]["marker"]["symbol"]
    assert best["values"][0] == pytest.approx(max(page.plots()["effect-0"]["data"][0]["y"]), 1e-4)


def test_importance_is_of_the_key_that_acts(tmp_path):
    trials = [a_trial(n) for n in range(40)]
    for trial in trials:
        trial["values"] = [float(np.log10(trial["params"]["optim.learning_rate"]))]
    shares, method = importance.importances(a_study(trials))
    assert max(shares, key=lambda key: shares[key]) == "optim.learning_rate"
    assert "fANOVA" in method
    assert "optim.momentum" not in shares  # only some trials have it
    few, reason = importance.importances(a_study(trials[:5]))
    assert few == {} and "at least 8" in reason


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: [], "expected an object"),
        (lambda s: {}, "missing"),
        (lambda s: {**s, "trials": {}}, "trials"),
        (lambda s: {**s, "objectives": []}, "there are none"),
        (lambda s: {**s, "objectives": [{"name": "x", "direction": "up"}]}, "objectives"),
        (lambda s: {**s, "space": [{"key": "a", "kind": "uniform"}]}, "space"),
        (lambda s: {**s, "trials": [{"number": "1"}]}, "trial '1': params"),
        (lambda s: {**s, "trials": [{**s["trials"][0], "values": ["0.5"]}]}, "trial 0: values"),
        (lambda s: {**s, "trials": [{**s["trials"][0], "params": {"a": 1}}]}, "trial 0: params"),
        (lambda s: {**s, "config": {}}, "config"),
        (lambda s: {**s, "time": {}}, "time"),
    ],
)
def test_a_damaged_study_is_told_in_one_message(make_study, damage, said):
    folder = make_study(6)
    path = folder / "study.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(WorkdirError, match=said) as caught:
        write_report(folder)
    assert str(path) in str(caught.value) and "jdlopt tune" in str(caught.value)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("text", [b"", b'{"trials": [', b"\xff\xfe\x00"])
def test_a_study_file_that_is_no_json_is_told(make_study, text):
    folder = make_study(3)
    (folder / "study.json").write_bytes(text)
    with pytest.raises(WorkdirError, match="damaged"):
        write_report(folder)


def test_damaged_curves_cost_the_curves_alone(make_study):
    folder = make_study(12)
    for path in (folder / "curves").glob("*.parquet"):
        path.write_bytes(b"PAR1 and then nothing")
    page = report(folder)
    assert "There are no curves" in page.words
    assert "Best trials" in titles(page)
    assert "Training curves" not in titles(page)


def test_a_directory_of_neither_kind_is_told(tmp_path):
    with pytest.raises(WorkdirError, match=r"neither a run's .*Name a directory"):
        write_report(tmp_path)
    with pytest.raises(WorkdirError, match="there is no such directory"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkdirError, match="is a file"):
        write_report(tmp_path / "file")
