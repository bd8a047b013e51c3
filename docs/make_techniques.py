"""Writes docs/techniques.md from the catalogue, with what was measured of each technique.

    python docs/make_techniques.py [--check]

Evidence comes from ``benchmarks/results/ablate_*.json``, which `benchmarks/measure_ablate.py`
writes; what is not there is not claimed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jdlopt.evidence import techniques

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/techniques.md"
RESULTS = ROOT / "benchmarks/results"
TITLES = {
    "data": "Data", "structure": "Structure", "regularisation": "Regularisation", "loss": "Loss",
    "optimisation": "Optimisation", "precision": "Precision and memory", "transfer": "Transfer",
    "ensembles": "Ensembles", "compression": "Compression",
}  # fmt: skip
HEAD = """# Techniques

Written by `python docs/make_techniques.py` from the catalogue, `jdlopt/evidence/techniques/`.
`jdlopt techniques --config=FILE` says which of them a config can use and what each would change;
[evidence.md](evidence.md) says how they are tested. "Measured here" are gains of a technique alone
over a baseline, with 95 % intervals over seeds, at the baseline's own learning rate; a positive
gain is better. "time" is that of a training without compiling and "memory" that of a step, as
multiples of the baseline's. What is not measured here needs other data, a recurrent network, or
weights to begin with.
"""


def page() -> str:
    """Returns the page."""
    evidence = measured()
    parts = [HEAD]
    for group in techniques.GROUPS:
        some = [one for one in techniques.TECHNIQUES.values() if one.group == group]
        parts.append(f"## {TITLES[group]}\n".replace("\\\n", ""))
        parts += [section(one, evidence.get(one.name, [])) for one in some]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def section(one: techniques.Technique, evidence: list[str]) -> str:
    """Returns the section of one technique."""
    tuned = ", ".join(f"`{key}`" for key in one.nuisance) or "nothing"
    lines = [
        f"### `{one.name}`",
        "",
        one.summary,
        "",
        f"- aims at: {', '.join(one.aims)}",
        f"- to be tuned with it: {tuned}",
        f"- cost: {one.cost}",
        f"- source: {one.source}",
        f"- try it: `jdlopt compare FILE +{one.name} --workdir=DIR`",
    ]
    if evidence:
        lines += ["- measured here:", *(f"  - {line}" for line in evidence)]
    else:
        lines.append("- not measured here")
    return "\n".join(lines)


def measured() -> dict[str, list[str]]:
    """Returns a line for each measurement, by technique."""
    found: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("ablate_*.json")):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name, one in record["techniques"].items():
            share = record["metric"] == "validation/accuracy"
            scale, digits, unit = (100.0, 1, "points of") if share else (1.0, 2, "in")
            if one["interval"] is None:
                text = f"{record['baseline']}: it diverged"
            else:
                mean, low, high = (
                    f"{scale * value:+.{digits}f}" for value in (one["gain"], *one["interval"])
                )
                text = (
                    f"{record['baseline']}: {mean} ({low} to {high}) {unit} "
                    f"{record['metric']}, {one['seeds']} seeds: {one['decision']}"
                )
                text += "".join(
                    f"; {what} × {one[what]:.2g}" for what in ("time", "memory") if one.get(what)
                )
            found.setdefault(name.partition(":")[0], []).append(text)
    return found


def main() -> int:
    """Writes the page, or with ``--check`` says whether it is as it would be written."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{PAGE}: is out of date; run python docs/make_techniques.py")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
