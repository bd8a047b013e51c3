"""The rows of results about studies over many machines."""

from __future__ import annotations

from cells import Row, load

ON = {"ray": "a Ray cluster", "slurm": "a SLURM allocation"}


def machine_rows() -> list[Row]:
    """Returns the rows about studies whose workers and machines are killed."""
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
