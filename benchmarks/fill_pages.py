"""Fills README's table, docs/measured.md and the configs' first lines from `results/*.json`.

python benchmarks/fill_pages.py            rewrite the pages
python benchmarks/fill_pages.py --check    exit with 1 if a page is not what the results say
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from cells import RESULTS, Row, closely, load, quality, where
from rows import groups

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs" / "measured.md"
IN_README = (
    ("measure_accuracy.py", "[mnist1d_cnn]"),
    ("measure_mnist.py", "[mnist_cnn]"),
    ("measure_torch.py", "examples/s of `fit`, mnist1d_mlp"),
    ("measure_torch.py", "examples/s of `fit`, image_cnn"),
    ("measure_step.py", "training steps/s alone, image_transformer"),
    ("measure_step.py", "training steps/s alone, image_resnet"),
    ("measure_study.py", "256 trials of mnist1d_mlp"),
    ("measure_search.py", ""),
    ("measure_transfer.py", ""),
    ("measure_improve.py", "`improve` of a plain MLP on MNIST-1D"),
    ("measure_augment.py", "augmented images/s, 32×32×3, RandAugment"),
)
"""The rows of README: script and how the row begins; those where a peer is faster, too."""
MOST_ROWS = 12


def shown(row: Row) -> bool:
    """Returns whether README has a row."""
    what, _, _, script = row
    return any(script == one and what.startswith(start) for one, start in IN_README)


def lines_of(rows: list[Row], up: str = "") -> list[str]:
    """Returns a table as Markdown; ``up`` leads from its page to the root."""
    lines = ["| what | measured | against | script |", "|---|---|---|---|"]
    lines += [
        f"| {what.replace('](', f']({up}')} | {value} | {against} | "
        f"[{script}]({up}benchmarks/{script}) |"
        for what, value, against, script in rows
    ]
    return lines


def machine() -> str:
    """Returns what the numbers hold for, in a sentence."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    machines = sorted({where(record) for record in records})
    jax = sorted({record["versions"]["jax"] for record in records})
    return (
        f"Measured on {' and '.join(machines)} with jax {', '.join(jax)}; medians, with the range "
        "over alternating repetitions, or mean ± standard deviation over seeds."
    )


def table() -> str:
    """Returns README's table as Markdown, with the machine above it."""
    rows = [row for group in groups().values() for row in group if shown(row)]
    assert len(rows) <= MOST_ROWS, f"README has {len(rows)} rows"
    return "\n".join([machine(), "", *lines_of(rows)])


def measured() -> str:
    """Returns docs/measured.md: all that was measured."""
    lines = ["# What was measured", "", *textwrap.wrap(machine(), 100)]
    lines += ["", "Made by `python benchmarks/fill_pages.py` from `benchmarks/results/`."]
    for heading, rows in groups().items():
        lines += ["", f"## {heading}", "", *lines_of(rows, "../")]
    return "\n".join(lines) + "\n"


def reaches(record: dict[str, Any]) -> str:
    """Returns the sentence that opens a config."""
    seconds, compiling = record["wall_seconds"]["median"], record["compile_seconds"]["median"]
    text = (
        f"Reaches {quality(record)} ({len(record['seeds'])} seeds) in {seconds:.0f} s, of it "
        f"{compiling:.0f} s compiling, on {where(record)}."
    )
    return textwrap.fill(text, 100)


def reaches_mnist(record: dict[str, Any]) -> str:
    """Returns the sentence that opens a config for MNIST."""
    found, seeds = record["test_accuracy"], f"({len(record['seeds'])} seeds)"
    minutes = next(iter(record["wall_seconds"].values()))["min"] / 60
    if "last" in found:
        reached = (
            f"{closely(found['last'])} test accuracy {seeds} with its last weights (`jdlopt eval "
            f"--checkpoint=newest`), {100 * found['best']['mean']:.2f} % with those that are best "
            "on the validation split,"
        )
    else:
        reached = (
            f"{closely(found['augmented'])} test accuracy {seeds}, and "
            f"{100 * found['plain']['mean']:.2f} % without augmentation,"
        )
    text = f"Reaches {reached} in {minutes:.0f} minutes on one core of an {record['cpu']}."
    return textwrap.fill(text, 100)


def pages() -> dict[Path, str]:
    """Returns each page with its numbers filled in."""
    readme = ROOT / "README.md"
    filled = re.sub(
        r"(<!-- results -->\n).*?(<!-- /results -->)",
        lambda match: f"{match[1]}{table()}\n{match[2]}",
        readme.read_text(),
        flags=re.DOTALL,
    )
    found = {readme: filled, MEASURED: measured()}
    for path in sorted(RESULTS.glob("accuracy_*.json")):
        record = json.loads(path.read_text())
        page = ROOT / record["config"]
        found[page] = opened(page, reaches(record))
    for name in ("mnist", "mnist_resnet"):
        record = load(name)
        if record:
            page = ROOT / record["config"]
            found[page] = opened(page, reaches_mnist(record))
    return found


def opened(page: Path, sentence: str) -> str:
    """Returns a config's text with the sentence on what it reaches."""
    return re.sub(
        r"^Reaches:? .*?(?=\n\n)",
        lambda _: sentence,
        page.read_text(),
        count=1,
        flags=re.DOTALL | re.MULTILINE,
    )


def main() -> int:
    """Writes or checks the pages."""
    check = "--check" in sys.argv[1:]
    made = pages()
    stale = [p for p, text in made.items() if not p.exists() or p.read_text() != text]
    for path in stale:
        print(f"{'is not what the results say' if check else 'filled'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(made[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
