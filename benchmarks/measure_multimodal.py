"""What fusion of several inputs and pairs of inputs reach on made cards.

    python benchmarks/measure_multimodal.py [--seeds=3]

Trains ``configs/multimodal/cards.py`` early, late and by attention, and with each input alone
(``model.use_inputs``), and compares fusion with the better single one on paired seeds
(`jdlopt.compare`); on whole cards, and on cards of which a tenth of each input is missing. Then
trains ``configs/multimodal/card_captions.py`` with each loss.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from cards import make
from recording import spread, write

import jdlopt
from jdlopt import config as configs
from jdlopt.evidence.options import ComparisonOptions

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("table", "picture", "note")
WAYS: dict[str, dict[str, Any]] = {
    "early": {},
    "late": {"model.fusion": "late"},
    "attention": {"model.fusion": "attention"},
    "early, modality_dropout=0.2": {"model.modality_dropout": 0.2},
    **{f"{name} alone": {"model.use_inputs": (name,)} for name in INPUTS},
}


def measured(config: configs.AnyConfig, seeds: int, name: str = "accuracy") -> dict[str, Any]:
    """Returns a metric of the test split in per cent, over seeds."""
    runs = [jdlopt.fit(configs.override(config, {"seed": seed})) for seed in range(seeds)]
    return spread([100 * run.metrics[f"test/{name}"] for run in runs])


def opened(name: str, path: Path) -> dict[str, Any]:
    """Returns a config of cards."""
    raw = configs.to_dict(configs.load(f"{ROOT}/configs/multimodal/{name}.py:{path}"))
    return raw | {"train": raw["train"] | {"tensorboard": False}}


def main() -> None:
    """Measures all, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    record: dict[str, Any] = {"seeds": seeds}
    with tempfile.TemporaryDirectory() as folder:
        for name, missing in {"whole": 0.0, "a tenth missing": 0.1}.items():
            path = make(Path(folder) / name.replace(" ", "_"), missing=missing)
            base = opened("cards", path)
            found = {
                way: measured(configs.override(base, changes), seeds)
                for way, changes in WAYS.items()
            }
            print(name, {way: round(one["mean"], 1) for way, one in found.items()})
            best = max(INPUTS, key=lambda one: found[f"{one} alone"]["mean"])
            single = configs.override(base, WAYS[f"{best} alone"])
            options = ComparisonOptions(seeds=8, metric="validation/accuracy")
            compared = jdlopt.compare(single, base, Path(folder) / f"of {name}", options)
            kept = {key: compared[key] for key in ("decision", "effect")}
            print(name, best, kept)
            record[name] = {**found, f"compared with {best} alone": kept}
        pairs = opened("card_captions", Path(folder) / "whole" / "cards.csv")
        record["pairs"] = {
            loss: {
                name: measured(configs.override(pairs, {"loss.name": loss}), seeds, name)
                for name in ("recall_at_1", "mean_recall")
            }
            for loss in ("clip", "siglip")
        }
        for loss, of in record["pairs"].items():
            print(loss, {name: round(one["mean"], 1) for name, one in of.items()})
    write("multimodal", record)


if __name__ == "__main__":
    main()
