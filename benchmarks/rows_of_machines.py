"""The rows of results about studies over many devices and machines, and runs that are killed."""

from __future__ import annotations

from cells import Row, load, times

ON = {"ray": "a Ray cluster", "slurm": "a SLURM allocation"}


def machine_rows() -> list[Row]:
    """Returns the rows about several devices and machines."""
    return _population_rows() + _cluster_rows() + _goodput_rows()


def _population_rows() -> list[Row]:
    record, script = load("population"), "measure_population.py"
    if not record:
        return []
    what = (
        f"{record['trials']} trials of mnist1d_mlp, {record['epochs']} epochs each, on "
        f"{record['devices_of_one_process']} devices of one process"
    )
    cores = f"{record['cores']} processes, a core each"
    in_turn, beside = record["results"]["scan"], record["results"]["vmap"]
    return [
        (f"{what}, while they train", times(record["speed"]["training"], 2), cores, script),
        (f"{what}, whole process", times(record["speed"]["whole"], 2), cores, script),
        (
            f"{what}: values that differ, one after the other",
            f"{in_turn['differ']:,} of {in_turn['values']:,}",
            "one device",
            script,
        ),
        (
            f"{what}: values that differ, side by side",
            f"{beside['differ']:,} of {beside['values']:,}, by at most {beside['most']:.0e}",
            "one device",
            script,
        ),
    ]


def _cluster_rows() -> list[Row]:
    """The rows about studies whose workers and machines are killed."""
    record, script = load("cluster"), "measure_cluster.py"
    if not record:
        return []
    found = []
    for on, where in ON.items():
        parts = [one for name, one in record.items() if name.startswith(f"{on}_")]
        for one in sorted(parts, key=lambda part: part["trials"]):
            killed = next(h for h in one["happened"] if h["what"] == "kill_machine")
            what = (
                f"{one['trials']:,} trials, {one['workers']} workers on {one['machines']} machines "
                f"of {where}; a worker killed, then a machine with {killed['workers']}"
            )
            if any(happened["what"] == "join" for happened in one["happened"]):
                what += ", and one that joins"
            said = f"{one['lost']} lost, {one['twice']} twice"
            alone = f"the same study on one machine: {one['values_that_differ']} values differ"
            found.append((what, said, alone, script))
    return found


def _goodput_rows() -> list[Row]:
    """The row about a run that is killed again and again."""
    record = load("goodput")
    if not record:
        return []
    kills, minutes = len(record["kills_after_seconds"]), record["minutes"]
    goodput = record["goodput"]
    return [
        (
            f"goodput of a CNN on digits that is killed {kills} times in {minutes:g} minutes",
            f"{goodput['reported']:.1%}",
            f"{goodput['counted']:.1%}, counted from outside",
            "measure_goodput.py",
        )
    ]
