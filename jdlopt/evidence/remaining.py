"""What ``improve`` had no time for, as its record has it: what is promising, what is untried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jdlopt.evidence.findings.finding import some
from jdlopt.evidence.options import SIZE, SPEED

_SAVED = {SIZE: "smaller", SPEED: "faster"}


def unjudged(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the candidates of a round that were promising while choosing, and not judged yet.

    A round that was played to its end has judged all that it took further.

    Example:
      >>> rows = [{"technique": "wider", "promising": True}]
      >>> rows += [{"technique": "l2", "promising": False}]
      >>> unjudged({"done": False, "candidates": rows, "confirmed": []})
      [{'technique': 'wider', 'promising': True}]
    """
    if not record or record["done"]:
        return []
    judged = {one["technique"] for one in record["confirmed"]}
    return [
        row for row in record["candidates"] if row["technique"] not in judged and row["promising"]
    ]


def in_words(record: Mapping[str, Any]) -> str | None:
    """Returns what an improvement's record says of what there was no time for; None if nothing.

    Example:
      >>> left = {"promising": [{"technique": "wider", "gain": 0.02, "seeds": 4}],
      ...         "untried": ["l2"], "seconds": 600.0}
      >>> print(in_words({"steps": [], "remaining": left, "seconds": 300.0}))
      Whether a technique makes the baseline better is not known yet. Better while choosing, and \
not tested yet: wider (+0.0200 with 4 seeds). Not tried yet: l2. That takes about 10 min more: the \
same call with --budget=15m goes on.
    """
    left = record.get("remaining")
    if not left:
        return None
    said = []
    within = record.get("within")
    good = f"{_SAVED[record['aim']]} within {within}" if within else "better"
    if not record["steps"]:
        said.append(f"Whether a technique makes the baseline {good} is not known yet.")
    if left["promising"]:
        rows = [f"{row['technique']} ({row['gain']:+.4f} with {row['seeds']} seeds)"
                for row in left["promising"]]  # fmt: skip
        said.append(
            f"{good[0].upper()}{good[1:]} while choosing, and not tested yet: {some(rows)}."
        )
    if left["untried"]:
        said.append(f"Not tried yet: {some(left['untried'])}.")
    minutes = max(1, math.ceil(left["seconds"] / 60))
    whole = max(1, math.ceil((record["seconds"] + left["seconds"]) / 60))
    said.append(
        f"That takes about {minutes} min more: the same call with --budget={whole}m goes on."
    )
    return " ".join(said)
