"""Readings of the choice: whether the best is better than others, or only luckier."""

from __future__ import annotations

from jdlopt.errors import listing
from jdlopt.study.differences import Difference, compare, late_noise
from jdlopt.study.enqueue import BASE
from jdlopt.study.readings.reading import ENOUGH, FEW, Found, Reading, curve, make
from jdlopt.study.records import Record
from jdlopt.study.space import words


def winner(found: Found) -> list[Reading]:
    """Whether the winner is better than the runner-up, or only luckier."""
    if len(found.trials) < 2:
        return []
    first, second = found.trials[:2]
    one = compared(found, first, second)
    names = f"Trial {first['number']} and the runner-up, trial {second['number']},"
    again = "Search once more near them with --repeats=5, in another directory, and compare means."
    if one.verdict == "unknown":
        return []
    if one.verdict == "apart":
        return [make("winner", "good", f"{names} differ by {one.words}.", **one.numbers)]
    if one.verdict == "unmeasured":
        text = f"{names} differ by {one.words}; how much seeds differ was not measured."
        return [make("winner", "note", text, again, **one.numbers)]
    text = f"{names} can't be told apart. Their difference is {one.words}."
    hint = f"Take the cheaper of them. {again}"
    return [make("winner", "warning", text, hint, **one.numbers)]


def compared(found: Found, first: Record, second: Record) -> Difference:
    """Compares two trials, the better one first, by what is known of their noise."""
    noise = late_noise(curve(found, first["number"], found.metric))
    return compare(first, second, found.sign, noise)


def answers(found: Found) -> list[Reading]:
    """What each scientific key's values reach, everything else tuned away."""
    made = []
    for row in found.space:
        if row.get("role") != "scientific":
            continue
        key = row["key"]
        if row["kind"] != "choice":
            places = [t["params"][key] for t in found.best if key in t["params"]]
            if len(places) >= FEW:
                text = f"{key}: the best {len(places)} trials lie from {min(places):.3g} to "
                text += f"{max(places):.3g}, of {row['low']:g} to {row['high']:g}."
                low, high = min(places), max(places)
                made.append(make("answer", "note", text, key=key, low=low, high=high))
            continue
        groups: dict[str, list[Record]] = {}
        for trial in found.trials:  # best first
            if key in trial["params"]:
                groups.setdefault(words(trial["params"][key]), []).append(trial)
        if len(groups) < 2:
            continue
        reached = "; ".join(f"{name}: {some[0]['values'][0]:.4g}" for name, some in groups.items())
        text = f"{key}, the best {found.metric} over everything else: {reached}."
        thin = [name for name, some in groups.items() if len(some) < ENOUGH // 2]
        one = compared(found, *(some[0] for some in list(groups.values())[:2]))
        text += f" The first two differ by {one.words}."
        level, hint = "good" if one.verdict == "apart" else "note", ""
        if one.verdict in ("same", "unknown"):
            hint = "The question is open: take the cheaper one, or search further."
        if thin:
            level, hint = (
                "warning",
                f"Few trials have {'; '.join(thin)}: search further first.",
            )
        made.append(make("answer", level, text, hint, key=key, **one.numbers))
    return made


def against_base(found: Found) -> list[Reading]:
    """How much better the best trial is than the base config."""
    rows = [row for row in found.study.get("enqueued") or () if row["origin"] == BASE]
    trials = {trial["number"]: trial for trial in found.study["trials"]}
    base = trials.get(rows[0]["trial"]) if rows else None
    if base is None or base["state"] == "running":
        return []
    number = base["number"]
    own = f"the base config, trial {number}"
    if rows[0]["outside"]:
        own += f" (but for {listing(rows[0]['outside'])}, which lies outside the space)"
    if base["state"] != "done" or not base.get("values"):
        why = str(base.get("reason") or "")
        how = f"was stopped early: {why}" if base["state"] == "pruned" else f"is infeasible: {why}"
        text = f"{own[0].upper()}{own[1:]}, {how.rstrip(': .')}."
        return [make("base", "note", text, trial=number)]
    value, best = base["values"][0], found.trials[0]
    if len(found.trials) == 1:
        text = f"Only {own}, has a value: {found.metric} {value:.4g}."
        return [make("base", "note", text, "Search on with more --trials.", trial=number)]
    if best["number"] == number or found.cost(best) == found.cost(base):
        text = f"No trial is better than {own}: {found.metric} {value:.4g}."
        hint = "Search more trials near it, or other keys."
        return [make("base", "warning", text, hint, trial=number, gain=0.0)]
    one = compared(found, best, base)
    text = (
        f"Trial {best['number']} is better than {own}: {found.metric} {best['values'][0]:.4g} "
        f"instead of {value:.4g}, by {one.words}."
    )
    numbers = {**one.numbers, "trial": number, "gain": one.numbers["difference"]}
    if one.verdict == "apart":
        return [make("base", "good", text, **numbers)]
    hint = "Whether that is more than chance says jdlopt compare, of it and best_config.json."
    return [make("base", "note", text, hint, **numbers)]


def data_changes(found: Found) -> list[Reading]:
    """Whether trials were trained on unlike data."""
    made = []
    for row in found.study.get("data_changes") or ():
        before = list(row["before"])
        changes = "; ".join(line.strip() for line in str(row["changes"]).splitlines())
        text = f"The data changed after {len(before)} trials: {changes}."
        if found.trials and found.trials[0]["number"] in before:
            text += " The best trial is one of those before."
        hint = "Values on either side of it are of unlike data: compare them with care."
        made.append(make("data", "warning", text, hint, before=before))
    return made
