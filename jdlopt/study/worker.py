"""A worker of a study: a process that trains the populations it is told to, one after the other.

It reads one JSON object a line from stdin and writes one a line to what was its stdout; everything
that libraries print goes to stderr. Without its coordinator it ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from jdlopt import memory

Say = Callable[[dict[str, Any]], None]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
"""The cores that this process may use."""
MOST_STRUCTURES = 40
"""Structures whose programs are held. Each takes hundreds of the memory mappings of which Linux
gives a process 65,530; what is wanted again is loaded from where programs are kept."""


def pin(core: int | None) -> None:
    """Keeps all threads of this process on one core; None lets all but the caller go anywhere.

    Workers that train take a core each; one that compiles takes what it can get. The caller stays,
    since XLA cuts a program's operations into as many parts as the compiling thread may use cores:
    on one core, parts only get in each other's way.
    """
    threads = Path("/proc/self/task")
    if "JDLOPT_CORE" not in os.environ or not threads.is_dir():
        return
    cores = set(CORES) if core is None else {CORES[core % len(CORES)]}
    for thread in threads.iterdir():
        if core is None and int(thread.name) == threading.get_native_id():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile, or the core is not ours
            os.sched_setaffinity(int(thread.name), cores)


def main() -> None:
    """Serves one coordinator until its end of the pipe closes."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
    stop = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "stop":
                stop.set()
            else:
                orders.put(order)
        os._exit(0)  # the coordinator is gone; another may start where its checkpoints are

    threading.Thread(target=listen, daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(message) + "\n")
        except BrokenPipeError:
            os._exit(1)  # the coordinator is gone: nobody will hear of the rest

    pin(int(os.environ.get("JDLOPT_CORE", "0")))  # before jax counts the cores for its threads
    worker = _Worker(say, stop)
    while True:
        worker.serve(orders.get())


class _Worker:
    """What a worker keeps between orders: data on the device and compiled programs."""

    def __init__(self, say: Say, stop: threading.Event):
        self.say, self.stop = say, stop
        import jax

        from jdlopt.study.population import Cache
        from jdlopt.train.compiling import keep_programs

        keep_programs()
        memory.keep()
        self.cache = Cache()
        self.structures: dict[str, Any] = {}
        self.data: dict[Any, Any] = {}
        devices = jax.local_devices()
        say({
            "event": "ready",
            "platform": devices[0].platform,
            "devices": [str(device) for device in devices],
        })  # fmt: skip

    def serve(self, order: dict[str, Any]) -> None:
        """Does what it is told; tells what came of it, a failure included."""
        from jdlopt.errors import DivergedError, UserError

        answer: dict[str, Any] = {"event": "done", "task": order.get("task")}
        try:
            answer |= {"check": self.check, "train": self.train, "fit": self.fit}[order["do"]](
                order
            )
        except (UserError, DivergedError) as error:
            answer |= {"event": "failed", "message": str(error), "kind": "user"}
        except MemoryError as error:
            answer |= {"event": "failed", "message": f"out of memory: {error}", "kind": "user"}
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            kind = "user" if "RESOURCE_EXHAUSTED" in text else "defect"
            answer |= {"event": "failed", "message": text, "kind": kind,
                       "traceback": traceback.format_exc()}  # fmt: skip
        self.say(answer)

    def check(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Checks a study's config, space and options; returns what its coordinator must know."""
        from jdlopt import config as configs
        from jdlopt.errors import ConfigError
        from jdlopt.metrics import higher_is_better
        from jdlopt.study import structure
        from jdlopt.study.space import from_json, probes
        from jdlopt.train import checks, disk, log
        from jdlopt.train.experiment import Experiment

        texts = {key: configs.Override(text) for key, text in order["overrides"].items()}
        raw = configs.override(order["config"], texts)
        watched = [name for name in order["objectives"] if name.startswith("validation/")]
        if watched:
            raw = configs.override(raw, {"train.monitor": watched[0]})
        points = list(probes(from_json(order["space"])))
        structure.check_probes(raw, points)
        if texts:  # read as the types that their keys ask for
            resolved = Experiment.build(configs.override(raw, points[0])).config
            raw = configs.override(raw, {key: _at(resolved.to_dict(), key) for key in texts})
        config = configs.to_dict(raw)
        shape = {k: v for k, v in points[0].items() if k not in order["traced"]}
        parts = self._structures(configs.override(config, shape), order["folds"])[0].parts
        directions = {}
        for name in order["objectives"] or [parts.monitor]:
            if name in ("n_params", "step_seconds"):
                directions[name] = "minimize"
                continue
            split, _, metric = name.partition("/")
            problem = checks.metric_problem(metric, parts.spec, watched=True)
            if split != "validation" or problem:
                raise ConfigError(
                    f"--objective: {name!r} is none: "
                    + (problem or "name validation/METRIC, n_params or step_seconds.")
                )
            directions[name] = "maximize" if higher_is_better(metric) else "minimize"
        return {
            "task": None,
            "config": config,
            "resolved": disk.as_json(parts.config.to_dict()),
            "directions": directions,
            "monitor": parts.monitor,
            "seed": parts.config.seed,
            "total_steps": parts.total_steps,
            "eval_every": parts.eval_every,
            "versions": log.versions(),
        }

    def _structures(self, config: Any, folds: Any) -> Any:
        """The structures of a config, built once."""
        from jdlopt import config as configs
        from jdlopt.study import structure

        config = configs.to_dict(config)
        group = json.dumps([config, folds], sort_keys=True)
        if group not in self.structures and len(self.structures) >= MOST_STRUCTURES:
            self.structures.clear()
            self.cache.forget()
        if group not in self.structures:
            self.structures[group] = structure.build(config, folds, self.data)
        return self.structures[group]

    def train(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Trains one population; returns how its members ended."""
        from jdlopt.study import population
        from jdlopt.train.disk import as_json

        started, compiled = time.perf_counter(), self.cache.compile.seconds
        structures = self._structures(order["config"], order["folds"])
        members = [population.Member(**member) for member in order["members"]]
        trained, facts = 0.0, []
        for one in structures:
            own = [member for member in members if member.fold in one.folds]
            if not own:
                continue
            if one.data is None:
                self._alone(one, own, order)
                continue
            facts.append(self._population(one, own, order))
            trained += facts[-1]["train_seconds"]
        compile_seconds = self.cache.compile.seconds - compiled
        first = structures[0]
        return as_json({
            "members": [
                {
                    "trial": member.trial,
                    "seed": member.seed,
                    "fold": member.fold,
                    "status": member.status,
                    "reason": member.reason,
                    "steps": member.steps,
                    "best_step": member.tracker.best.step,
                    "value": member.tracker.best.value,
                    "rows": member.rows,
                }
                for member in members
            ],
            "fingerprint": first.fingerprint,
            "total_steps": first.parts.total_steps,
            "train_seconds": trained,
            "compile_seconds": compile_seconds,
            "seconds": time.perf_counter() - started,
            **(facts[0] if facts else {}),
        })  # fmt: skip

    def _population(self, structure: Any, members: Any, order: Mapping[str, Any]) -> dict[str, Any]:
        import jax

        from jdlopt.study import population
        from jdlopt.study.halving import rungs

        parts = structure.parts
        formulation = order["formulation"] or ("scan" if jax.default_backend() == "cpu" else "vmap")
        directory = Path(order["directory"]) / structure.fingerprint
        history = {int(step): values for step, values in order["history"].items()}
        made = population.Population(
            structure,
            members,
            width=max(order["width"], len(members)),
            formulation=formulation,
            cache=self.cache,
            halving=order["halving"],
            history=history,
            rungs=rungs(parts.total_steps, parts.eval_every, order["reduction"]),
            reduction=order["reduction"],
            directory=directory,
            checkpoint_seconds=parts.config.train.checkpoint_seconds,
        )
        chosen = "told" if order["formulation"] else "default"
        pin(None)
        made.compile()
        pin(int(os.environ.get("JDLOPT_CORE", "0")))
        if order["calibrate"] and not order["formulation"]:
            made.choose()
            chosen = "measured"

        def tell(now: population.Population) -> None:
            self.say({
                "event": "progress",
                "task": order["task"],
                "step": now.step,
                "total_steps": now.total,
                "active": len(now.active),
            })  # fmt: skip

        made.train_all(self.stop.is_set, tell)
        if made.active and order["directory"] and made.step:
            made.save()
        return {
            "formulation": made.formulation,
            "devices": [str(device) for device in made.layout.devices],
            "chosen": chosen,
            "step_seconds_measured": made.step_seconds,
            "reached": {str(step): values for step, values in made.reached.items()},
            "n_params": made.n_params,
            "train_seconds": made.train_seconds,
            "step_seconds": made.train_seconds / max(1, made.trained_steps),
        }

    def _alone(self, structure: Any, members: Any, order: Mapping[str, Any]) -> None:
        """Trains members by `fit`, one by one, each in a directory of its own."""
        from jdlopt import config as configs
        from jdlopt.errors import DivergedError
        from jdlopt.study.population import DIVERGED
        from jdlopt.train import log
        from jdlopt.train.loop import fit

        for member in members:
            place = (
                Path(order["directory"]) / f"{member.trial:04d}-{member.seed}-{member.fold or 0}"
            )
            changes = {**member.params, "seed": member.seed, "train.evaluate_test": False}
            if member.fold is not None:
                changes["data.fold"] = member.fold
            member.tracker = structure.tracker(member.fold)
            try:
                record = fit(configs.override(order["config"], changes), place).record
                member.status, member.steps = record["status"], record["steps"]
                step, value = record["best"]["step"], record["best"]["value"]
                value = math.nan if value is None else value
                member.tracker.best = member.tracker.best.after(step, value)
            except DivergedError as error:
                member.status, member.steps, member.reason = DIVERGED, error.step, str(error)
            member.rows = log.read_lines(place / log.METRICS)
            if self.stop.is_set():
                break

    def fit(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Trains one config by `fit`, in a run's directory."""
        from jdlopt.train.loop import fit

        return {"record": fit(order["config"], order["workdir"]).record}


def _at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value[name]
    return value


if __name__ == "__main__":
    main()
