"""Made cards: a picture, a note and numbers of each, of which every one tells a part of its class.

    python benchmarks/cards.py FOLDER [--count=2000] [--seed=0] [--missing=0.1]

writes ``FOLDER/cards.csv`` and the pictures that it names, a pure function of count, seed and
missing. The class is how many of three hidden bits are 1: ``zero`` to ``three``. The picture shows
the first (a disc is round, a square is not), one word among ten of the note the second, and the
sign of ``balance`` the third. One of them alone can be right half of the time, two together three
times out of four. ``caption`` describes the picture. The share ``missing`` of the pictures, of the
notes and of the rows of numbers is not there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SIDE = 16
CLASSES = ("zero", "one", "two", "three")
TELLING = (("calm", "still", "slow"), ("wild", "loud", "quick"))
FILLING = ("a", "the", "card", "of", "with", "this", "is", "there", "and", "old", "new", "some")
SIZES = {"small": 3, "large": 5}
PLACES = {"upper left": (5, 5), "upper right": (5, 10), "lower left": (10, 5),
          "lower right": (10, 10)}  # fmt: skip
COLOURS = {"grey": 120, "white": 255}


def picture(
    rng: np.random.Generator, round_one: bool, size: str, place: str, colour: str
) -> np.ndarray:
    """Returns a disc or a square on noise, uint8 [SIDE, SIDE]."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    row, column = (centre + rng.integers(-1, 2) for centre in PLACES[place])
    across, down = np.abs(columns - column), np.abs(rows - row)
    radius = SIZES[size]
    inside = across**2 + down**2 <= radius**2 if round_one else np.maximum(across, down) < radius
    noisy = rng.normal(40, 25, (SIDE, SIDE)) + COLOURS[colour] * inside
    return np.clip(noisy, 0, 255).astype(np.uint8)


def make(folder: Path, count: int = 2000, seed: int = 0, missing: float = 0.0) -> Path:
    """Writes the cards and their pictures; returns the path of the table."""
    rng = np.random.default_rng(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        bits = rng.integers(0, 2, 3)
        size, place, colour = (str(rng.choice(list(of))) for of in (SIZES, PLACES, COLOURS))
        name = f"pictures/{number}.png"
        Image.fromarray(picture(rng, bool(bits[0]), size, place, colour)).save(folder / name)
        words = list(rng.choice(FILLING, 9))
        words.insert(int(rng.integers(0, 10)), str(rng.choice(TELLING[bits[1]])))
        shape = "disc" if bits[0] else "square"
        rows.append({
            "picture": name,
            "caption": f"a {size} {colour} {shape} in the {place} corner",
            "note": " ".join(words),
            "balance": (2 * bits[2] - 1) * rng.uniform(0.2, 2),
            "weight": rng.normal(),
            "class": CLASSES[bits.sum()],
        })  # fmt: skip
    table = pd.DataFrame(rows)
    gone = rng.random((count, 3)) < missing
    gone[gone.all(axis=1)] = False
    for place, names in enumerate((["picture"], ["note"], ["balance", "weight"])):
        table.loc[gone[:, place], names] = None
    table.to_csv(folder / "cards.csv", index=False)
    return folder / "cards.csv"


def main() -> None:
    """Writes cards into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--missing", type=float, default=0.1)
    given = parser.parse_args()
    print(make(given.folder, given.count, given.seed, given.missing))


if __name__ == "__main__":
    main()
