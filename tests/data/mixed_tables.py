"""A made table whose target takes a number, an image and a text to know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

TEXTS = ("this one is broken and very slow", "that one works well and is quick")
WORDS = ("red", "green", "big", "small", "old", "new", "left", "right", "round", "square")


def make_table(folder: Path, count: int = 300, seed: int = 0) -> Path:
    """Writes ``made.csv`` and the images that it names; the target is what most of three say.

    Each of the three is right three times out of four.
    """
    rng = np.random.default_rng(seed)
    (folder / "photos").mkdir()
    rows = []
    for row, bits in enumerate(rng.integers(0, 2, (count, 3))):
        pixels = rng.integers(0, 120, (8, 8)) + 100 * bits[1]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"photos/{row}.png")
        words = [*rng.choice(WORDS, 3), TEXTS[bits[2]], *rng.choice(WORDS, 2)]
        rows.append(
            {
                "age": rng.normal() + (3 if bits[0] else -3),
                "colour": rng.choice(["blue", "white"]),
                "photo": f"photos/{row}.png",
                "note": " ".join(words),
                "size": ["no", "yes"][int(bits.sum() >= 2)],
            }
        )
    pd.DataFrame(rows).to_csv(folder / "made.csv", index=False)
    return folder / "made.csv"
