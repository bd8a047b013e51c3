"""The verbs of a dataset: ``data list``, ``data describe``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from jdlopt.cli.show import DONE, load, print_json, print_rows


def listed(flags: argparse.Namespace) -> int:
    """Lists the datasets that are here."""
    from jdlopt.data.describe import list_datasets

    rows = list_datasets(flags.data_dir)
    if flags.json:
        print_json({"datasets": rows})
        return DONE
    shown = [
        {
            "data.source": row["name"],
            "task": row["task"] or "",
            "examples": " + ".join(f"{size:,} {split}" for split, size in row["sizes"].items()),
            "what it is": row["description"].partition("\n")[0],
        }
        for row in rows
    ]
    print_rows(shown, "datasets")
    return DONE


def described(flags: argparse.Namespace) -> int:
    """Describes a config's dataset."""
    from jdlopt.data.describe import describe
    from jdlopt.data.source import open_dataset
    from jdlopt.train import experiment
    from jdlopt.train.disk import as_json

    section = experiment.resolve_data(load(flags))
    description = describe(open_dataset(section, allow_missing=True))
    if flags.json:
        print_json(as_json(description))
        return DONE
    _print_description(description)
    return DONE


def _print_description(description: Mapping[str, Any]) -> None:
    shape = "×".join(str(size) for size in description["input_shape"])
    target = f"{description['num_classes']} classes" if description["num_classes"] else "a number"
    title = f"{description['name']}: {description['input_dtype']} inputs of shape {shape}, "
    splits = description["splits"]
    print_rows(
        [
            {
                "split": name,
                "examples": split["examples"],
                "MB": split["nbytes"] / 1e6,
                **(
                    split.get("inputs")
                    or dict.fromkeys(("missing", "min", "max", "mean", "std"), "–")
                ),
            }
            for name, split in splits.items()
        ],
        f"{title}{target} to predict (the test split is counted and not read)",
    )
    read = {name: split for name, split in splits.items() if split["read"]}
    if description["num_classes"]:
        rows = [
            {
                "class": name,
                **{split: read[split]["classes"][name]["examples"] for split in read},
                "share in train": f"{read['train']['classes'][name]['share']:.1%}",
            }
            for name in description["class_names"]
        ]
        print_rows(rows, "class balance")
    else:
        rows = [{"split": split, **found["target"]} for split, found in read.items()]
        print_rows(rows, "target")
    if description["feature_names"]:
        features = read["train"]["features"]
        print_rows([{"feature": name, **found} for name, found in features.items()], "features")
