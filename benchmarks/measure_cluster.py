"""Counts what a study over several machines loses when a worker and a machine are killed.

    python benchmarks/measure_cluster.py [--on=ray] [--trials=200] [--machines=3] [--workers=8]

The machines are nodes of one cluster, Ray's or SLURM's, on this one; so the times say nothing of a
real cluster, and the counts do. Trials are those of a linear model. A worker is killed (SIGKILL)
when a quarter of the trials has ended, a whole machine with all its workers at half, and, of Ray's,
a new machine joins when five eighths have. Then the same study is trained on this machine alone,
and compared trial by trial. Needs `ray`, or Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import recording

SPACE_OF = {"optim.learning_rate": (1e-3, 1e-1), "loss.l2": (1e-6, 1e-2)}
CONFIG = {
    "seed": 0,
    "data": {"source": "iris", "batch_size": 32},
    "model": {"name": "mlp", "features": ()},
    "loss": {"name": "cross_entropy", "l2": 1e-4},
    "optim": {"name": "sgd", "learning_rate": 0.01},
    "train": {"steps": 200, "eval_every": 50, "evaluate_test": False},
}
OBJECT_STORE = 80 * 2**20
"""Bytes of Ray's memory for objects, of which a study needs none."""
WAIT_SECONDS = 2.0
"""How long each result is held up at most, until a machine that has joined has a worker."""
IMPROVED = {
    "data": {"source": "iris", "batch_size": 32, "preprocess": {"scale": "standard"}},
    "model": {"name": "mlp", "features": (8,)},
    "optim": {"name": "adam", "learning_rate": 1e-3},  # far too low
    "train": {"epochs": 20},
    "mesh": {"data": 1},
}
IMPROVE = (
    "--techniques=learning_rate_up", "--until=validation/accuracy>=0.8", "--confirm=5",
    "--test-seeds=2", "--budget=10m", "--no-diagnosis", "--no-report",
)  # fmt: skip
"""How `IMPROVED` is improved: one technique, confirmed and tested."""


def children(pid: int) -> Iterator[int]:
    """Yields the processes that one has started, and those that these have started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has ended
        if parent == pid:
            yield int(path.parent.name)
            yield from children(int(path.parent.name))


def workers_of(machine: Any) -> list[int]:
    """Returns jdlopt's worker processes on a machine."""
    found = []
    for pid in children(machine.all_processes["raylet"][0].process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"jdlopt.executor" in words:
            found.append(pid)
    return found


class Cluster:
    """Machines of a Ray cluster, and what is done to them while a study runs.

    Args:
      machines: how many.
      workers: places for workers on all of them.
      trials: of the study.
    """

    def __init__(self, machines: int, workers: int, trials: int):
        from ray.cluster_utils import Cluster as Nodes

        self.trials = trials
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        self.nodes = Nodes(initialize_head=True, head_node_args=head)
        shares = [workers // machines + (n < workers % machines) for n in range(machines)]
        self.machines = [self.add(share) for share in shares]
        self.largest = max(shares)
        self.happened: list[dict[str, Any]] = []
        self.joined: Any = None
        self.most = 0

    def add(self, places: int) -> Any:
        """Returns a new machine, with places for so many workers."""
        return self.nodes.add_node(num_cpus=places, object_store_memory=OBJECT_STORE)

    def act(self, now: Any) -> None:
        """Kills and adds, by how far the study has come; an ``on_progress``."""
        steps = (self.kill_worker, 2 / 8), (self.kill_machine, 4 / 8), (self.join, 5 / 8)
        done = now.done + now.pruned + now.infeasible
        if self.joined is not None:
            until = time.perf_counter() + WAIT_SECONDS
            while not self.most and time.perf_counter() < until:  # else a short study is over first
                self.most = len(workers_of(self.joined))
                time.sleep(0.1)
            self.most = max(self.most, len(workers_of(self.joined)))
        if len(self.happened) < len(steps):
            act, share = steps[len(self.happened)]
            if done >= share * self.trials:
                self.happened.append({"what": act.__name__, "trials_done": done, **act()})
                print(self.happened[-1], flush=True)

    def kill_worker(self) -> dict[str, Any]:
        """Kills one worker process of the last machine."""
        found = workers_of(self.machines[-1])
        os.kill(found[0], signal.SIGKILL)
        return {"workers": 1}

    def kill_machine(self) -> dict[str, Any]:
        """Kills all processes of the first machine."""
        found = workers_of(self.machines[0])
        self.nodes.remove_node(self.machines[0], allow_graceful=False)
        return {"workers": len(found)}

    def join(self) -> dict[str, Any]:
        """Adds a machine in the place of the killed one."""
        self.joined = self.add(self.largest)
        return {"places": self.largest}


def tuned(workdir: Path, trials: int, on_progress: Any = None, **options: Any) -> dict[str, Any]:
    """Runs the study; returns its record."""
    from jdlopt.study.options import Options
    from jdlopt.study.space import log_uniform
    from jdlopt.study.tune import tune

    space = {key: log_uniform(*ends) for key, ends in SPACE_OF.items()}
    asked = Options(trials=trials, keep=0, **options)
    return tune(CONFIG, space, workdir, asked, on_progress).record


def counted(workdir: Path, trials: int) -> dict[str, Any]:
    """Counts the trials in Optuna's storage and in the curves: those that are not there once."""
    import optuna
    import pandas as pd

    storage = optuna.storages.RDBStorage(f"sqlite:///{workdir / 'study.db'}")
    there = optuna.load_study(study_name="study", storage=storage).trials
    storage.engine.dispose()
    numbers = collections.Counter(one.number for one in there if one.state.name == "COMPLETE")
    rows = pd.read_parquet(workdir / "curves.parquet").value_counts(["trial", "seed", "step"])
    steps = rows.groupby("trial").size()
    return {
        "trials": trials,
        "finished": sum(numbers.values()),
        "lost": len(set(range(trials)) - set(numbers)),
        "twice": sum(count > 1 for count in numbers.values()) + int((rows > 1).sum()),
        "evaluations_a_trial": sorted({int(count) for count in steps}),
    }


def measured(
    trials: int, machines: int, workers: int, width: int | None = None, alone: bool = True
) -> dict[str, Any]:
    """Runs a study with kills, and the same one alone if wanted; returns counts and times."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        place = Path(folder)
        cluster = Cluster(machines, workers, trials)
        try:
            start = time.perf_counter()
            where = f"ray:{cluster.nodes.address}"
            record = tuned(place / "many", trials, cluster.act, workers_on=where, width=width)
            seconds = time.perf_counter() - start
        finally:
            cluster.nodes.shutdown()
        found = {
            **counted(place / "many", trials),
            "machines": machines,
            "workers": workers,
            "happened": cluster.happened,
            "workers_on_the_machine_that_joined": cluster.most,
            "seconds": seconds,
        }
        return found | (compared(record, place / "one", width) if alone else {})


def compared(record: dict[str, Any], workdir: Path, width: int | None) -> dict[str, Any]:
    """Trains a study's trials again on this machine alone; returns how many differ."""
    start = time.perf_counter()
    other = tuned(workdir, len(record["trials"]), width=width)
    values = [[one["values"] for one in each["trials"]] for each in (record, other)]
    differ = sum(a != b for a, b in zip(*values, strict=True))
    return {"seconds_alone": time.perf_counter() - start, "values_that_differ": differ}


def measured_on_slurm(trials: int, machines: int, workers: int) -> dict[str, Any]:
    """Runs a study as steps of a job, with kills, and the same one alone."""
    import slurm_here

    nodes, happened = [f"n{number}" for number in range(machines)], []
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, slurm_here.slurm(nodes) as slurm:
        place = Path(folder)
        ends = {key: f"log_uniform{ends}" for key, ends in SPACE_OF.items()}
        space = ", ".join(f"{key!r}: {text}" for key, text in ends.items())
        (place / "config.py").write_text(
            "from jdlopt.study.space import log_uniform\n\n"
            f"def get_config():\n    return {CONFIG!r}\n\n"
            f"def get_space():\n    return {{{space}}}\n"
        )
        words = [f"--config={place / 'config.py'}", f"--workdir={place / 'many'}"]
        words += [f"--trials={trials}", "--keep=0", "--no-report"]
        jdlopt, options = [sys.executable, "-m", "jdlopt.cli"], [f"--nodes={machines}"]
        start = time.perf_counter()
        job = slurm.submit(
            [*options, f"--ntasks={workers}"], ["tune", *words], jdlopt, "study.sbatch"
        )
        for what, share in ("kill_worker", 2 / 8), ("kill_machine", 4 / 8):
            slurm_here.wait_for(
                what, lambda share=share: slurm_here.so_far(place / "many") >= share * trials, 280
            )
            done, living = slurm_here.so_far(place / "many"), slurm_here.workers()
            if what == "kill_worker":
                os.kill(next(pid for pid, node in living.items() if node == nodes[0]), 9)
            else:
                slurm_here.kill_node(slurm, nodes[-1])
            lost = 1 if what == "kill_worker" else [*living.values()].count(nodes[-1])
            happened.append({"what": what, "trials_done": done, "workers": lost})
            print(happened[-1], flush=True)
        state = job.ended(280)
        seconds = time.perf_counter() - start
        assert state == "COMPLETED", job.output()
        record = json.loads((place / "many" / "study.json").read_text())
        found = {**counted(place / "many", trials), "machines": machines, "workers": workers}
        found |= {"happened": happened, "seconds": seconds}
        return found | compared(record, place / "one", None)


def trainings(workdir: Path) -> dict[str, list[dict[str, float]]]:
    """Returns the metrics of each training of an improvement, by config and seed."""
    from jdlopt.evidence.trainings import read_line

    found: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    for path in sorted((workdir / "trainings").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            one = read_line(line)
            if one is not None:
                found[f"{path.stem} {one.seed}"].append(one.metrics)
    return found


def words_of_improve(place: Path, workdir: Path) -> list[str]:
    """Returns the words of ``jdlopt improve`` for `IMPROVED`, whose file is written."""
    (place / "config.py").write_text(f"def get_config():\n    return {IMPROVED!r}\n")
    return ["improve", f"--config={place / 'config.py'}", f"--workdir={workdir}", *IMPROVE]


def improved(machines: int) -> dict[str, Any]:
    """Improves a config on a Ray cluster, a worker killed, and alone; returns what differs."""
    from slurm_here import wait_for

    command = [sys.executable, "-m", "jdlopt.cli"]
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        many, alone = Path(folder) / "many", Path(folder) / "alone"
        cluster = Cluster(machines, machines, 0)
        try:
            words = words_of_improve(Path(folder), many)
            started = subprocess.Popen(
                [*command, *words, f"--workers-on=ray:{cluster.nodes.address}"]
            )
            wait_for("trainings", lambda: len(trainings(many)) >= 3, 180)
            cluster.kill_worker()
            killed_after = len(trainings(many))
            code = started.wait(280)
        finally:
            cluster.nodes.shutdown()
        subprocess.run([*command, *words_of_improve(Path(folder), alone)], check=True)
        found, expected = trainings(many), trainings(alone)
        records = [json.loads((one / "improve.json").read_text()) for one in (many, alone)]
    pairs = [(found[key][0], expected[key][0]) for key in found.keys() & expected.keys()]
    return {
        "code": code,
        "trainings": len(expected),
        "killed_after": killed_after,
        "lost": len(expected.keys() - found.keys()),
        "more": len(found.keys() - expected.keys()),
        "twice": sum(len(each) > 1 for each in found.values()),
        "apart": max(abs(a[name] - b[name]) for a, b in pairs for name in b),
        "adopted": [[step["technique"] for step in one["steps"]] for one in records],
    }


def main() -> None:
    """Measures and records."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--on", choices=("ray", "slurm"), default="ray")
    flags.add_argument("--trials", type=int, default=200)
    flags.add_argument("--machines", type=int, default=3)
    flags.add_argument("--workers", type=int, default=8)
    given = flags.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    asked = given.trials, given.machines, given.workers
    found = measured_on_slurm(*asked) if given.on == "slurm" else measured(*asked)
    tool = "ray" if given.on == "ray" else "slurm-wlm"
    print(found, flush=True)
    record = {**found, "tool": f"{tool} {version(given.on)}"}
    recording.write("cluster", {f"{given.on}_{given.trials}": record}, keep=True)


def version(on: str) -> str:
    """Returns the version of what the machines are nodes of."""
    if on == "ray":
        return importlib.metadata.version("ray")
    said = subprocess.run(["/usr/sbin/slurmd", "-V"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1]


if __name__ == "__main__":
    main()
