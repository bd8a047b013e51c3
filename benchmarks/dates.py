"""Writes a table of dates as people write them and as ISO 8601 does, a pure function of a seed.

    python benchmarks/dates.py dates.csv [--rows=6000] [--seed=0]

The column ``written`` has a date in one of many ways, in three languages; ``iso`` the same as
``1999-03-07``. No date is in it twice.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import random
from pathlib import Path

FIRST, YEARS = 1950, 100
MONTHS = {
    "en": ("January", "February", "March", "April", "May", "June", "July", "August", "September",
           "October", "November", "December"),
    "de": ("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September",
           "Oktober", "November", "Dezember"),
    "fr": ("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre",
           "octobre", "novembre", "décembre"),
}  # fmt: skip
DAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
}
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


def written(day: datetime.date, rng: random.Random) -> str:
    """Returns a date as people write it; of numbers alone the day comes first."""
    d, m, y = day.day, day.month, day.year
    names, days = {code: MONTHS[code][m - 1] for code in MONTHS}, DAYS
    ending = {1: "st", 2: "nd", 3: "rd"}.get(d % 10 if d not in (11, 12, 13) else 0, "th")
    ways = (
        f"{d} {names['en']} {y}",
        f"{names['en']} {d}{ending}, {y}",
        f"{names['en'][:3]} {d}, {y}",
        f"{days['en'][day.weekday()]}, {names['en']} {d}, {y}",
        f"{days['en'][day.weekday()][:3]} {names['en'][:3]} {d:02} {y}",
        f"the {d}{ending} of {names['en']} {y}",
        f"{d}. {names['de']} {y}",
        f"{days['de'][day.weekday()]}, den {d}. {names['de']} {y}",
        f"{d}.{m}.{y}",
        f"{d:02}.{m:02}.{y % 100:02}",
        f"{'1er' if d == 1 else d} {names['fr']} {y}",
        f"{days['fr'][day.weekday()]} {d} {names['fr']} {y}",
        f"{d:02}/{m:02}/{y}",
        f"{d}-{ROMAN[m - 1]}-{y}",
        f"{y}{m:02}{d:02}",
    )
    return rng.choice(ways)


def dates(seed: int, count: int) -> list[tuple[str, str]]:
    """Returns pairs of a date as it is written and in ISO 8601, all of different dates."""
    rng = random.Random(seed)
    first = datetime.date(FIRST, 1, 1).toordinal()
    span = datetime.date(FIRST + YEARS, 1, 1).toordinal() - first
    chosen = [datetime.date.fromordinal(first + n) for n in rng.sample(range(span), count)]
    return [(written(day, rng), day.isoformat()) for day in chosen]


def write(path: Path, seed: int, count: int) -> None:
    """Writes the pairs as a CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("written", "iso"))
        table.writerows(dates(seed, count))


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("file", type=Path)
    words.add_argument("--rows", type=int, default=6000)
    words.add_argument("--seed", type=int, default=0)
    flags = words.parse_args()
    write(flags.file, flags.seed, flags.rows)
