"""Measures the goodput of a run that is killed again and again, and counts it from outside as well.

    python benchmarks/measure_goodput.py [--minutes=10] [--kills=10]

The 2-D CNN of configs/image/digits_cnn.py trains until the time is up; a process that only looks
on kills it (SIGKILL) at moments drawn from the whole time, and starts it again at once.
``reported`` is what the run's ``result.json`` says. ``counted`` is from outside: the time is that
of a clock here, from the first start to the last end. Steps that count are those up to the
checkpoint that the next start goes on from; how long they took is the time between the moments at
which their lines came into ``metrics.jsonl``. Where a checkpoint was begun or an evaluation made
between two lines, the median of the other steps of that start stands for what they took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recording import write

from jdlopt.train import checkpoint

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "image" / "digits_cnn.py"
EVAL_EVERY = 500
KEYS = {
    "train.epochs": None,
    "train.steps": 1_000_000,
    "train.log_every": 10,
    "train.eval_every": EVAL_EVERY,
    "train.checkpoint_seconds": 2,
    "train.tensorboard": False,
}
LOOK_SECONDS = 0.01


@dataclass
class Life:
    """What was seen of one start.

    Attributes:
      first: the step that it went on from.
      seen: when lines came, the step of the last one, and whether a checkpoint was begun since.
    """

    first: int
    seen: list[tuple[float, int, bool]] = field(default_factory=list)

    def seconds(self, kept: int) -> float:
        """Returns how long its steps up to one that was kept took."""
        plain: list[float] = []
        parts: list[tuple[int, int, float | None]] = []
        for (before, start, _), (now, step, saved) in zip(self.seen, self.seen[1:]):
            evaluated = start // EVAL_EVERY != step // EVAL_EVERY
            took = None if saved or evaluated else (now - before) / (step - start)
            plain += [] if took is None else [took]
            parts.append((start, step, took))
        if not plain:
            return 0.0
        typical = statistics.median(plain)
        parts.insert(0, (self.first, self.seen[0][1], None))
        return sum(
            max(0, min(step, kept) - start) * (typical if took is None else took)
            for start, step, took in parts
        )


def last_step(path: Path) -> int:
    """Returns the step of the last whole line of a log; -1 if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().split(b"\n")
        return int(json.loads(lines[-2])["step"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return -1


def newest(workdir: Path) -> int:
    """Returns the step of the newest checkpoint."""
    return max(checkpoint.steps(workdir / "checkpoints"), default=0)


def look_on(process: subprocess.Popen[bytes], workdir: Path, until: float) -> Life:
    """Notes when lines come, until a moment or the end of the process."""
    life, folder = Life(newest(workdir)), workdir / "checkpoints"
    log, size, saving, saved = workdir / "metrics.jsonl", -1, set[str](), False
    before = log.stat().st_ino if log.exists() else -1  # a start writes the log anew
    while time.perf_counter() < until and process.poll() is None:
        time.sleep(LOOK_SECONDS)
        names = (
            {name for name in os.listdir(folder) if "saving" in name} if folder.is_dir() else set()
        )
        saved, saving = saved or bool(names - saving), names
        now = log.stat() if log.exists() else None
        found = -1 if now is None or now.st_ino == before else now.st_size
        if found == size:
            continue
        size, step = found, last_step(log)
        if step > max(life.first, life.seen[-1][1] if life.seen else 0):
            life.seen.append((time.perf_counter(), step, saved))
            saved = False
    return life


def measure(workdir: Path, seconds: float, kills: Sequence[float]) -> dict[str, Any]:
    """Runs, kills and starts again; returns both counts.

    Args:
      workdir: the run's directory.
      seconds: how long in all.
      kills: after how many seconds it is killed.
    """
    words = [sys.executable, "-m", "jdlopt.cli", "train", f"--config={CONFIG}", "--json"]
    words += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in KEYS.items())]
    begun, counted, kept = time.perf_counter(), 0.0, []
    for at in (*kills, seconds):
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
        life = look_on(process, workdir, begun + at)
        if at == seconds:
            process.send_signal(signal.SIGTERM)
            process.wait()
        else:
            process.kill()
            process.wait()
        kept.append(newest(workdir))
        counted += life.seconds(kept[-1])
    wall = time.perf_counter() - begun
    record = json.loads((workdir / "result.json").read_text())
    return {
        "wall_seconds": {"counted": wall, "reported": record["wall_seconds"]},
        "goodput": {"counted": counted / wall, "reported": record["goodput"]["share"]},
        "seconds": record["goodput"]["seconds"],
        "starts": record["goodput"]["starts"],
        "steps": record["steps"],
        "lost_steps": record["goodput"]["lost_steps"],
        "kept_at_each_end": kept,
    }


def main() -> None:
    """Measures and writes ``results/goodput.json``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    seconds = 60 * flags.minutes
    rng = random.Random(flags.seed)
    kills = sorted(rng.uniform(0.0, seconds) for _ in range(flags.kills))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder) / "run", seconds, kills)
    goodput = found["goodput"]
    print(f"reported {goodput['reported']:.1%}, counted {goodput['counted']:.1%}")
    asked = {"minutes": flags.minutes, "kills_after_seconds": kills, "seed": flags.seed}
    write("goodput", {**asked, "load_before": load, "config": CONFIG.name, "keys": KEYS, **found})


if __name__ == "__main__":
    main()
