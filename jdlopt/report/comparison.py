"""The reports of comparisons: two configs, or many techniques, with their intervals."""

from __future__ import annotations

from pathlib import Path

from jdlopt.report import commands
from jdlopt.report.effects import changes, forest, gain, interval, pair, ratio, shown
from jdlopt.report.figures import BEST, COLOURS, scale
from jdlopt.report.page import Figure, Spec, Table, number, render
from jdlopt.report.records import as_written, read
from jdlopt.report.saving import save
from jdlopt.study.records import Record

COMPARISON, ABLATION = "compare.json", "ablate.json"


def write_comparison(workdir: Path) -> Path:
    """Writes ``report.html`` of a comparison's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    needed = {"metric": str, "decision": str, "a": dict, "b": dict, "changes": dict, "pairs": list,
              "cost": dict, "seeds": int}  # fmt: skip
    record = read(workdir / COMPARISON, needed)
    with as_written(workdir / COMPARISON):
        text = _comparison(record, workdir)
    return save(workdir, text)


def _comparison(record: Record, workdir: Path) -> str:
    effect, cost, metric = record["effect"], record["cost"], record["metric"]
    facts = [
        ("decision", record["decision"]),
        (f"gain, {effect['level']:.0%} interval" if effect else "gain", *pair(effect)),
        ("seeds", record["seeds"]),
        ("training time", ratio(cost.get("training_seconds"))),
        ("parameters", ratio(cost.get("n_params"))),
        ("bytes of the weights", ratio(cost.get("bytes"))),
        ("memory of a step", ratio(cost.get("memory"))),
    ]
    pairs = [
        [str(pair["seed"]), pair["a"], pair["b"], gain(pair["gain"])] for pair in record["pairs"]
    ]
    changed = [
        [key, shown(before), shown(after)] for key, (before, after) in record["changes"].items()
    ]
    sides = [
        [
            name,
            f"{number(side['mean'])} ± {number(side['std'])}",
            1e3 * side["step_seconds"] if side["step_seconds"] else None,
            side["steps"],
            side["n_params"],
        ]
        for name, side in (("A", record["a"]), ("B", record["b"]))
    ]
    tuned = [
        [side.upper(), one["points"], one["value"], changes(one["point"]) or "its own"]
        for side, one in (record.get("tuning") or {}).items()
    ]
    return render(
        "comparison",
        title=f"Comparison {workdir.resolve().name}",
        lead=f"B against A by {metric}, over {record['seeds']} seeds.",
        footer="Both sides have the same seeds and the same order of the data; the test split is "
        "unseen.",
        facts=facts,
        decision=record["decision"],
        reason=record.get("reason"),
        effect=effect,
        least=record.get("least"),
        detectable=record.get("detectable"),
        gains=_gains(record) if any(pair["gain"] for pair in record["pairs"]) else None,
        paired=bool(record["pairs"]),
        pairs=Table("Every pair", ("seed", "A", "B", "gain"), pairs),
        changes=Table("Config keys", ("key", "A", "B"), changed),
        sides=Table("Sides", ("", metric, "ms per step", "steps", "parameters"), sides),
        commands=commands.of_comparison(workdir, record),
        where=commands.where((record.get("configs") or {}).get("a") or {}),
        tuning=Table("Nuisance keys", ("", "points tried", metric, "best"), tuned)
        if tuned
        else None,
    )


def _gains(record: Record) -> Figure:
    effect = record["effect"]
    low, high = effect["interval"]
    data: list[Spec] = [
        {
            "type": "bar",
            "x": [str(pair["seed"]) for pair in record["pairs"]],
            "y": [pair["gain"] for pair in record["pairs"]],
            "marker": {"color": COLOURS[0]},
            "hovertemplate": "seed %{x}: %{y:+.4g}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": scale("seed", type="category"),
        "yaxis": scale("gain of B"),
        "shapes": [
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height,
                "line": {"color": BEST, "dash": dash, "width": 2},
            }
            for height, dash in ((effect["mean"], "solid"), (low, "dot"), (high, "dot"))
            if height is not None
        ],
    }  # fmt: skip
    caption = f"Gain of B by seed. Lines: the mean and its interval, {interval(effect)}."
    return Figure("gains", caption, caption, data, layout, 340)


def write_ablation(workdir: Path) -> Path:
    """Writes ``report.html`` of an ablation's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    needed = {"metric": str, "techniques": list, "arms": dict, "seeds": int}
    record = read(workdir / ABLATION, needed)
    with as_written(workdir / ABLATION):
        text = _ablation(record, workdir.resolve().name)
    return save(workdir, text)


def _ablation(record: Record, name: str) -> str:
    rows, metric, level = record["techniques"], record["metric"], f"{record['level']:.0%}"
    adopted = [row["technique"] for row in rows if row["decision"] == "adopt"]
    facts = [
        (f"baseline {metric}", record["arms"]["baseline"]["mean"]),
        (f"all together, {level} interval", *pair(record["all"])),
        ("worth adopting", ", ".join(adopted) or "none"),
        ("seeds", record["seeds"]),
    ]
    table = [
        [
            row["technique"],
            pair(row["alone"]),
            (row["alone"] or {}).get("adjusted_p_value"),
            pair(row["left_out"]),
            (row["left_out"] or {}).get("adjusted_p_value"),
            ratio(row["cost"].get("training_seconds")),
            row["decision"],
            changes(row["change"]),
        ]
        for row in rows
    ]
    header = ("technique", f"alone ({level})", "p (Holm)", f"left out ({level})",
              "p (Holm)", "training time", "decision", "change")  # fmt: skip
    series = [
        ("alone", [row["alone"] for row in rows]),
        ("left out of all", [row["left_out"] for row in rows]),
    ]
    names = [row["technique"] for row in rows]
    return render(
        "ablation",
        title=f"Ablation {name}",
        lead=f"{len(rows)} techniques by {metric}.",
        footer="All arms share their seeds and the order of their data; the test split is unseen.",
        facts=facts,
        forest=forest("forest", "Gains with their intervals; left of zero is worse", names, series),
        techniques=Table("All techniques", header, table, wide=(7,)),
        interactions=[
            (row["technique"], interval(row["interaction"]))
            for row in rows
            if row["technique"] in record["interactions"]
        ],
        failed=[
            (row["technique"], len(row["bad"]), next(iter(row["bad"].values())))
            for row in rows
            if row["bad"]
        ],
    )
