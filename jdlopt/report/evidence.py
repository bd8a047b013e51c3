"""The reports of comparisons: two configs, or many techniques, with their intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdlopt.errors import WorkdirError
from jdlopt.report import figures, page, save

COMPARISON, ABLATION = "compare.json", "ablate.json"
DECISIONS = ("adopt", "drop", "undecided")
ROW_PIXELS = 46
"""The height of a technique in a forest plot."""


def read(path: Path, needed: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Returns a record of a comparison, checked for the parts that a report needs.

    Raises:
      WorkdirError: it can't be read, or is not as jdlopt writes it.
    """
    hint = "The same command writes it again."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkdirError(f"{path}: can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise WorkdirError(f"{path}: is damaged: {error}. {hint}") from error
    found = record if isinstance(record, dict) else {}
    wrong = [name for name, kind in needed.items() if not isinstance(found.get(name), kind)]
    if wrong:
        raise WorkdirError(f"{path}: is not as jdlopt writes it: {wrong[0]} is missing. {hint}")
    return found


def gain(value: Any) -> str:
    """Returns a gain with its sign; a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:+.4g}"


def interval(effect: Mapping[str, Any] | None) -> str:
    """Returns an effect in words: its mean and its interval."""
    if not effect:
        return "–"
    low, high = effect["interval"]
    if low is None or high is None:
        return f"{gain(effect['mean'])} (too few seeds)"
    return f"{gain(effect['mean'])} ({gain(low)} to {gain(high)})"


# --- two configs ----------------------------------------------------------------------------------


def write_comparison(workdir: Path) -> Path:
    """Writes ``report.html`` of a comparison's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    needed = {"metric": str, "decision": str, "a": dict, "b": dict, "changes": dict, "pairs": list,
              "cost": dict, "seeds": int}  # fmt: skip
    record = read(workdir / COMPARISON, needed)
    try:
        content = _comparison(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(
            f"{workdir / COMPARISON}: is not as jdlopt writes it: {error!r}. The same command "
            "writes it again."
        ) from error
    lead = f"B against A by {record['metric']}, over {record['seeds']} seeds."
    footer = "The same seeds, the same order of the data on both sides; the test split is unseen."
    return save(workdir, page.page(f"Comparison {workdir.resolve().name}", lead, content, footer))


def _comparison(record: Mapping[str, Any]) -> list[str]:
    effect, cost = record["effect"], record["cost"]
    level = f"{effect['level']:.0%}" if effect else ""
    pairs = [
        ("decision", page.text(record["decision"])),
        (f"gain, {level} interval" if effect else "gain", interval(effect)),
        ("seeds", page.number(record["seeds"])),
        ("training time", _times(cost.get("training_seconds"))),
        ("parameters", _times(cost.get("n_params"))),
        ("memory of a step", _times(cost.get("memory"))),
    ]
    content = [page.facts(pairs), f"<p>{page.text(_verdict(record))}</p>"]
    if record["pairs"]:
        content.append(page.section("pairs", "Pairs", _gains(record), _pairs(record)))
    rows = [
        [page.text(key), page.text(shown(before)), page.text(shown(after))]
        for key, (before, after) in record["changes"].items()
    ]
    content.append(
        page.section("changes", "What differs", page.table("Config keys", ("key", "A", "B"), rows))
    )
    sides = [
        [
            name,
            f"{page.number(record[side]['mean'])} ± {page.number(record[side]['std'])}",
            page.number(record[side]["step_seconds"]),
            page.number(record[side]["steps"]),
            page.number(record[side]["n_params"]),
        ]
        for name, side in (("A", "a"), ("B", "b"))
    ]
    header = ("", record["metric"], "seconds a step", "steps", "parameters")
    content.append(page.section("cost", "What it costs", page.table("Sides", header, sides)))
    tuning = record.get("tuning")
    if tuning:
        rows = [
            [side.upper(), page.number(one["points"]), page.number(one["value"]),
             page.text(", ".join(f"{k}={shown(v)}" for k, v in one["point"].items()) or "its own")]
            for side, one in tuning.items()
        ]  # fmt: skip
        names = ("", "points tried", record["metric"], "best")
        words = "<p>Each side's nuisance keys were tuned on other seeds, at as many points.</p>"
        content.append(
            page.section("tuning", "Tuning", words, page.table("Nuisance keys", names, rows))
        )
    return content


def _times(ratio: Any) -> str:
    return f"{ratio:.3g}×" if isinstance(ratio, int | float) else "–"


def shown(value: Any) -> str:
    """Returns a config's value as a reader would write it."""
    if isinstance(value, list):
        return ", ".join(shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _verdict(record: Mapping[str, Any]) -> str:
    effect = record["effect"]
    if record.get("reason"):
        return str(record["reason"])
    looks = "however often one looks" if effect["kind"] == "sequential" else "for one look"
    words = {
        "adopt": f"The whole interval lies above {record['least']:g}: B is better.",
        "drop": f"The whole interval lies below {record['least']:g}, or nothing differs.",
        "undecided": "The interval does not decide.",
    }[record["decision"]]
    words += f" It holds {looks}."
    if record["decision"] == "undecided":
        needed = effect.get("seeds_needed")
        words += (
            f" If the gain is as large as it looks, {needed} seeds make it clear."
            if needed
            else " No number of seeds would make so small a gain clear."
        )
        words += (
            f" A gain of {page.number(record['detectable'])} is found 8 times in 10 with "
            "these looks."
        )
    return words


def _gains(record: Mapping[str, Any]) -> str:
    seeds = [str(pair["seed"]) for pair in record["pairs"]]
    values = [pair["gain"] for pair in record["pairs"]]
    effect = record["effect"]
    data: list[dict[str, Any]] = [
        {"type": "bar", "x": seeds, "y": values, "marker": {"color": figures.COLOURS[0]},
         "hovertemplate": "seed %{x}: %{y:+.4g}<extra></extra>"}
    ]  # fmt: skip
    low, high = effect["interval"]
    shapes = [_line(effect["mean"], "solid")]
    shapes += [_line(end, "dot") for end in (low, high) if end is not None]
    layout = {
        "xaxis": figures.scale("seed", type="category"),
        "yaxis": figures.scale("gain of B"),
        "shapes": shapes,
    }
    words = f"Gain of B by seed; mean {interval(effect)}. The lines are the mean and the interval."
    return page.figure("gains", words, words, data, layout, 340)


def _line(height: float, dash: str) -> dict[str, Any]:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height,
        "line": {"color": figures.BEST, "dash": dash, "width": 2},
    }  # fmt: skip


def _pairs(record: Mapping[str, Any]) -> str:
    rows = [
        [page.number(pair["seed"]), page.number(pair["a"]), page.number(pair["b"]),
         gain(pair["gain"])]
        for pair in record["pairs"]
    ]  # fmt: skip
    return page.table("Every pair", ("seed", "A", "B", "gain"), rows)


# --- many techniques ------------------------------------------------------------------------------


def write_ablation(workdir: Path) -> Path:
    """Writes ``report.html`` of an ablation's directory; returns its path.

    Raises:
      WorkdirError: the record can't be read.
    """
    needed = {"metric": str, "techniques": list, "arms": dict, "seeds": int}
    record = read(workdir / ABLATION, needed)
    try:
        content = _ablation(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkdirError(
            f"{workdir / ABLATION}: is not as jdlopt writes it: {error!r}. The same command "
            "writes it again."
        ) from error
    lead = f"{len(record['techniques'])} techniques by {record['metric']}."
    footer = "All arms share their seeds and the order of their data; the test split is unseen."
    return save(workdir, page.page(f"Ablation {workdir.resolve().name}", lead, content, footer))


def _ablation(record: Mapping[str, Any]) -> list[str]:
    rows, baseline = record["techniques"], record["arms"]["baseline"]
    adopted = [row["technique"] for row in rows if row["decision"] == "adopt"]
    level = f"{record['level']:.0%}"
    facts = [
        (f"baseline {record['metric']}", page.number(baseline["mean"])),
        ("all together", interval(record["all"])),
        ("worth adopting", page.text(", ".join(adopted) or "none")),
        ("seeds", page.number(record["seeds"])),
    ]
    table = [
        [
            page.text(row["technique"]),
            interval(row["alone"]),
            page.number((row["alone"] or {}).get("adjusted_p_value")),
            interval(row["left_out"]),
            page.number((row["left_out"] or {}).get("adjusted_p_value")),
            _times(row["cost"].get("training_seconds")),
            page.text(row["decision"]),
            f'<td class="text">{page.text(_changed(row["change"]))}</td>',
        ]
        for row in rows
    ]
    header = ("technique", f"alone ({level})", "p, corrected", f"left out ({level})",
              "p, corrected", "training time", "decision", "change")  # fmt: skip
    words = (
        "<p>Alone: the baseline with the technique, less the baseline. Left out: all together, "
        "less all without it. p values are corrected for the number of comparisons (Holm).</p>"
    )
    content = [
        page.facts(facts),
        page.section(
            "techniques", "Techniques", words, _forest(rows), page.table("All", header, table)
        ),
    ]
    named = [row for row in rows if row["technique"] in record["interactions"]]
    if named:
        items = "".join(
            f"<li>{page.text(row['technique'])} is worth {interval(row['interaction'])} more "
            "beside the others than alone.</li>"
            for row in named
        )
        content.append(page.section("interactions", "Interactions", f"<ul>{items}</ul>"))
    bad = [(row["technique"], row["bad"]) for row in rows if row["bad"]]
    if bad:
        items = "".join(
            f"<li>{page.text(name)}: {len(some)} seeds failed or diverged: "
            f"{page.text(next(iter(some.values())))}</li>"
            for name, some in bad
        )
        content.append(page.section("bad", "Failed", f"<ul>{items}</ul>"))
    return content


def _changed(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {shown(value)}" for key, value in change.items())


def _forest(rows: Sequence[Mapping[str, Any]]) -> str:
    """A forest plot: a line a technique, its gain alone and its gain beside the others."""
    names = [page.text(row["technique"]) for row in rows]
    return forest(
        "forest",
        "Gains with their intervals; left of zero is worse",
        names,
        [
            ("alone", [row["alone"] for row in rows]),
            ("left out of all", [row["left_out"] for row in rows]),
        ],
    )


def forest(
    name: str,
    caption: str,
    rows: Sequence[str],
    series: Sequence[tuple[str, Sequence[Mapping[str, Any] | None]]],
) -> str:
    """Returns a plot of effects with their intervals, a row each.

    Args:
      name: the element's id.
      caption: what stands under it.
      rows: the names, as HTML.
      series: label and effects, one a row or None.
    """
    data = []
    for index, (label, effects) in enumerate(series):
        known = [
            (place, one) for place, one in enumerate(effects) if one and None not in one["interval"]
        ]
        if not known:
            continue
        shift = 0.16 * (index - (len(series) - 1) / 2)
        data.append({
            "type": "scatter", "mode": "markers", "name": label,
            "x": [one["mean"] for _, one in known],
            "y": [place + shift for place, _ in known],
            "error_x": {
                "type": "data", "symmetric": False, "thickness": 2,
                "array": [one["interval"][1] - one["mean"] for _, one in known],
                "arrayminus": [one["mean"] - one["interval"][0] for _, one in known],
            },
            "marker": {"size": 9, "color": figures.COLOURS[index],
                       "symbol": ("circle", "diamond")[index % 2]},
            "text": [rows[place] for place, _ in known],
            "hovertemplate": "%{text}: %{x:+.4g}<extra></extra>",
        })  # fmt: skip
    layout = {
        "showlegend": len(data) > 1,
        "legend": figures.LEGEND,
        "xaxis": figures.scale("gain", zeroline=True, zerolinewidth=2),
        "yaxis": {
            "tickvals": list(range(len(rows))), "ticktext": [f"{row} " for row in rows],
            "range": [len(rows) - 0.5, -0.5], "automargin": True, "showgrid": False,
            "zeroline": False,
        },
    }  # fmt: skip
    told = "; ".join(
        f"{row}: {interval(effects[place])} {label}"
        for place, row in enumerate(rows)
        for label, effects in series
        if effects[place]
    )
    height = 110 + ROW_PIXELS * len(rows)
    return page.figure(name, caption, f"{caption}. {told}.", data, layout, height)
