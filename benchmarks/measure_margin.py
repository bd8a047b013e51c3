"""How often `compress` accepts candidates: whose loss is the margin, and who lose nothing.

    python benchmarks/measure_margin.py [--draws=400]

Losses of pairs are drawn around the margin, and around 0, with several standard deviations, for
several numbers of seeds. What decides is the verb's own function, at the looks that the verb takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from recording import write

from jdlopt.evidence.margin import ACCEPTED, UNDECIDED, decide, looks

MARGIN = 0.005
NOISES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations of a pair's loss, in margins."""
SEEDS = (3, 5, 10, 20)


def accepted(losses: Sequence[float]) -> bool:
    """Says whether a candidate with these losses is accepted at any look."""
    for count in looks(len(losses)):
        found = decide(losses[:count], MARGIN, 0.95)
        if found.decision != UNDECIDED or found.hopeless:
            return found.decision == ACCEPTED
    return False


def share(true: float, noise: float, seeds: int, draws: int) -> float:
    """Returns the share of drawn candidates that is accepted."""
    rng = np.random.default_rng([seeds, int(noise * 100), int(true > 0)])
    drawn = true + noise * MARGIN * rng.normal(size=(draws, seeds))
    return sum(accepted(one.tolist()) for one in drawn) / draws


def main() -> None:
    """Measures every noise with every number of seeds."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--draws", type=int, default=400)
    draws = words.parse_args().draws
    rows = [
        {
            "noise": noise,
            "seeds": seeds,
            "accepted_at_the_margin": share(MARGIN, noise, seeds, draws),
            "accepted_without_loss": share(0.0, noise, seeds, draws),
        }
        for noise in NOISES
        for seeds in SEEDS
    ]
    for row in rows:
        print(row)
    worst = max(row["accepted_at_the_margin"] for row in rows)
    print(f"of the losses of exactly the margin at most {worst:.1%} accepted")
    write("margin", {"margin": MARGIN, "draws": draws, "level": 0.95, "rows": rows, "worst": worst})


if __name__ == "__main__":
    main()
