"""The analytic estimate against published trainings, and what it says of more and more chips.

python benchmarks/measure_plan.py   # results/plan.json, and the tables of docs/scale.md
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import decoder
import jax
import jax.numpy as jnp
import optax
from recording import write
from scipy.stats import spearmanr

from jdlopt.plan.analytic import (
    EFFICIENCY,
    Estimate,
    Workload,
    estimated,
    weak_scaling,
    workload,
)
from jdlopt.plan.chips import find_chip


class Row(NamedTuple):
    """A published training.

    Attributes:
      name, chip, chips: what was trained on which machine; ``slices`` of it.
      sizes: of the decoder.
      batch: examples a chip.
      mesh: devices along each axis.
      remat: what is kept for the backward pass.
      published: TFLOP/s a chip as MaxText counts them, or seconds a step.
      unit: which of the two.
      source: where.
    """

    name: str
    chip: str
    chips: int
    sizes: decoder.Sizes
    batch: float
    mesh: dict[str, int]
    remat: str
    published: float
    unit: str
    source: str
    slices: int = 1
    block: int = decoder.BLOCK

    @property
    def counted(self) -> float:
        """FLOPs of a step and chip, as MaxText counts them."""
        return decoder.counted_flops(self.sizes, self.batch)

    @property
    def seconds(self) -> float:
        """What was published, as seconds a step."""
        return self.published if self.unit == "s" else self.counted / (self.published * 1e12)


def _decoder(layers: int, width: int, heads: int, mlp: int) -> decoder.Sizes:
    return decoder.Sizes(layers, width, heads, 128, mlp, heads, 32000, 2048)


B16, B32 = _decoder(32, 4096, 64, 28672), _decoder(32, 8192, 64, 28672)
B64, B128 = _decoder(64, 8192, 64, 28672), _decoder(64, 8192, 128, 57344)
B256, B512 = _decoder(64, 16384, 128, 57344), _decoder(128, 16384, 128, 57344)
LLAMA8B = decoder.Sizes(32, 4096, 32, 128, 14336, 8, 128256, 8192)
LLAMA70B = decoder.Sizes(80, 8192, 64, 128, 28672, 8, 128256, 8192)
FUJI7B = decoder.Sizes(32, 4096, 32, 128, 11008, 32, 32768, 4096)

V5E, V5P = "MaxText, configs/v5e/README.md", "MaxText, configs/v5p/README.md"
TRILLIUM = "AI-Hypercomputer/tpu-recipes, training/trillium"
FULL = {"fsdp": 256}
ROWS = (
    Row("16B", "v5e", 256, B16, 6, FULL, "full", 120, "TFLOP/s", V5E),
    Row("32B", "v5e", 256, B32, 4, FULL, "full", 132, "TFLOP/s", V5E),
    Row("64B", "v5e", 256, B64, 2, FULL, "full", 118, "TFLOP/s", V5E),
    Row("128B", "v5e", 256, B128, 1, {"fsdp": 16, "tensor": 16}, "minimal", 110, "TFLOP/s", V5E),
    Row("32B", "v5p", 64, B32, 7, {"fsdp": 16, "tensor": 4}, "minimal", 328, "TFLOP/s", V5P),
    Row("64B", "v5p", 64, B64, 3, {"fsdp": 16, "tensor": 4}, "minimal", 323, "TFLOP/s", V5P),
    Row("128B", "v5p", 128, B128, 1, {"fsdp": 16, "tensor": 8}, "minimal", 315, "TFLOP/s", V5P),
    Row("256B", "v5p", 512, B256, 1, {"fsdp": 64, "tensor": 8}, "minimal", 308, "TFLOP/s", V5P),
    Row("512B", "v5p", 512, B512, 2, {"fsdp": 64, "tensor": 8}, "full", 294, "TFLOP/s", V5P),
    Row("16B", "v5e", 256, B16, 6, FULL, "full", 10.31, "s", V5E),
    Row("32B", "v5e", 256, B32, 4, FULL, "full", 12.09, "s", V5E),
    Row("64B", "v5e", 256, B64, 2, FULL, "full", 13.47, "s", V5E),
    Row("Llama 3.1 8B", "v6e", 8, LLAMA8B, 3, {"fsdp": 8}, "qkv and out", 3.443, "s", TRILLIUM,
        block=2048),
    Row("Llama 3.1 70B", "v6e", 64, LLAMA70B, 2, {"fsdp": 64}, "qkv", 18.688, "s", TRILLIUM,
        block=2048),
)  # fmt: skip
"""MaxText's. Meshes and what is kept are those of the recipes beside the figures; the 128B on v5e
and the models on v6e keep it in the host's memory, which is not estimated."""
HELD_OUT = (
    *(
        Row(name, "v5e", 256 * slices, sizes, batch, {"data": slices, **mesh}, kept, value,
            "TFLOP/s", V5E, slices=slices)
        for name, sizes, batch, mesh, kept, values in (
            ("16B", B16, 6, FULL, "full", {2: 117, 8: 115, 32: 108}),
            ("32B", B32, 4, FULL, "full", {2: 128, 8: 125, 32: 119}),
            ("64B", B64, 2, FULL, "full", {2: 112, 8: 108, 32: 99}),
            ("128B", B128, 1, {"fsdp": 16, "tensor": 16}, "minimal", {2: 110, 8: 104, 32: 91}),
        )
        for slices, value in values.items()
    ),
    *(
        Row(name, "v5p", 2 * chips, sizes, batch, {"data": 2, **mesh}, kept, value, "TFLOP/s", V5P,
            slices=2)
        for name, chips, sizes, batch, mesh, kept, value in (
            ("32B", 64, B32, 7, {"fsdp": 16, "tensor": 4}, "minimal", 319),
            ("64B", 64, B64, 3, {"fsdp": 16, "tensor": 4}, "minimal", 309),
            ("128B", 128, B128, 1, {"fsdp": 16, "tensor": 8}, "minimal", 305),
            ("256B", 512, B256, 1, {"fsdp": 64, "tensor": 8}, "minimal", 289),
            ("512B", 512, B512, 2, {"fsdp": 64, "tensor": 8}, "full", 282),
        )
    ),
)  # fmt: skip
"""MaxText's on several slices, which the efficiency was not fitted to."""
OTHERS = (
    Row("Fuji 7B", "v5e", 1024, FUJI7B, 1, {"data": 4, "fsdp": 256}, "minimal", 2.21, "s",
        "AXLearn, experiments/text/gpt/fuji.py", slices=4),
)  # fmt: skip
"""Trained by other programs."""
CHIPS = tuple(4**power for power in range(1, 7))
B1 = _decoder(16, 2048, 16, 8192)
SCALED = (("v5e", "1.2B", B1, 8), ("v5p", "16B", B16, 4))
"""What is put on more and more chips: chip, model, its sizes, examples a chip."""
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"


def work_of(sizes: decoder.Sizes, remat: str, block: int = decoder.BLOCK) -> Workload:
    """Returns the step of a decoder, traced, with AdamW's two moments."""
    loss = partial(decoder.loss, sizes=sizes, remat=remat)
    tokens = jax.ShapeDtypeStruct((1, sizes.positions), jnp.int32)
    return workload(
        loss,
        decoder.shapes(sizes),
        tokens,
        optimizer=optax.adamw(1e-3),
        rules=decoder.RULES,
        kernels=decoder.kernels(sizes, block),
    )


def compared(row: Row) -> dict[str, Any]:
    """Returns what was published of a training, and what is estimated."""
    work = work_of(row.sizes, row.remat, row.block)
    chip = find_chip(row.chip)
    found = estimated(work, chip, row.mesh, int(row.batch * row.chips), slices=row.slices)
    peak = chip.peak("bfloat16")
    return {
        "model": row.name,
        "chip": row.chip,
        "chips": row.chips,
        "mesh": row.mesh,
        "batch_per_chip": row.batch,
        "kept": row.remat,
        "source": row.source,
        "published": {"value": row.published, "unit": row.unit},
        "published_seconds": row.seconds,
        "published_mfu": row.counted / row.seconds / peak,
        "estimated_seconds": found.seconds.expected,
        "estimated_range": [found.seconds.low, found.seconds.high],
        "estimated_mfu": row.counted / found.seconds.expected / peak,
        "off": found.seconds.expected / row.seconds - 1,
        "bound": found.bound,
        "memory": found.memory.total,
        "seconds_at_peak": found.seconds.compute,
    }


def agreement(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns how far estimates follow what was published."""

    def ranks(name: str) -> float:
        return float(
            spearmanr([one[f"published_{name}"] for one in rows],
                      [one[f"estimated_{name}"] for one in rows]).statistic
        )  # fmt: skip

    off = [one["off"] for one in rows]
    return {
        "trainings": len(rows),
        "rank_correlation_seconds": ranks("seconds"),
        "rank_correlation_mfu": ranks("mfu"),
        "most_off": max(off, key=abs),
        "mean_off": sum(off) / len(off),
    }


def scaling() -> list[dict[str, Any]]:
    """Returns two decoders on 4 to 4,096 chips, so many examples a chip."""
    found = []
    for name, model, sizes, each in SCALED:
        chip, work = find_chip(name), work_of(sizes, "full")

        def mesh(count: int, most: int = chip.most) -> dict[str, int]:
            return {"data": max(1, count // most), "fsdp": min(count, most)}

        for one in weak_scaling(work, chip, CHIPS, each, mesh):
            found.append({"chip": name, "model": model, "examples_per_chip": each, **_scaled(one)})
    return found


def _scaled(one: Estimate) -> dict[str, Any]:
    return {
        "chips": one.chips,
        "slices": one.slices,
        "mesh": {axis: size for axis, size in one.mesh.items() if size > 1},
        "memory": one.memory.total,
        "limit": one.limit,
        "seconds": one.seconds.expected,
        "range": [one.seconds.low, one.seconds.high],
        "mfu": one.mfu,
        "bound": one.bound,
        "examples_per_second": one.examples_per_second,
    }


def page(record: dict[str, Any]) -> None:
    """Writes the tables of docs/scale.md between their marks."""
    text = PAGE.read_text("utf-8")
    tables = {
        "published": _rows(record, [*record["rows"], *record["others"]], "agreement"),
        "held out": _rows(record, record["held_out"], "agreement_held_out"),
        "scaling": _scaling(record),
    }
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + "\n".join(lines) + "\n" + end + after
    PAGE.write_text(text, "utf-8")


def _rows(record: dict[str, Any], rows: list[dict[str, Any]], agreement: str) -> list[str]:
    agreed = record[agreement]
    lines = [
        f"At an efficiency of {record['efficiency']:.2f}, over {agreed['trainings']} trainings by "
        f"MaxText: rank correlation {agreed['rank_correlation_seconds']:.3f} of seconds and "
        f"{agreed['rank_correlation_mfu']:.3f} of MFU; {agreed['mean_off']:+.0%} on average, "
        f"{agreed['most_off']:+.0%} where it is most off.",
        "",
        "| model | chips | mesh | examples a chip | kept | published | estimated | range | off |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        mesh = " × ".join(f"{axis} {size}" for axis, size in one["mesh"].items())
        value, unit = one["published"]["value"], one["published"]["unit"]
        said = "" if unit == "s" else f" ({value:g} {unit})"
        low, high = one["estimated_range"]
        lines.append(
            f"| {one['model']} | {one['chips']} {one['chip']} | {mesh} | "
            f"{one['batch_per_chip']:g} | {one['kept']} | {one['published_seconds']:.2f} s{said} | "
            f"{one['estimated_seconds']:.2f} s | {low:.2f} to {high:.2f} s | {one['off']:+.0%} |"
        )
    return lines


def _scaling(record: dict[str, Any]) -> list[str]:
    lines = [
        "| model | chips | mesh | memory a chip | a step | MFU | examples/s | bound by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in record["scaling"]:
        mesh = " × ".join(f"{axis} {size}" for axis, size in one["mesh"].items())
        lines.append(
            f"| {one['model']} | {one['chips']:,} {one['chip']} | {mesh} | "
            f"{one['memory'] / 2**30:.1f} of {one['limit'] / 2**30:.1f} GiB | "
            f"{one['seconds']:.3f} s | {one['mfu']:.1%} | {one['examples_per_second']:,.0f} | "
            f"{one['bound']} |"
        )
    lines += ["", "```mermaid", "xychart-beta",
              '    title "MFU (%) on more and more chips: v5e, then v5p"',
              f"    x-axis [{', '.join(f'{count:,}'.replace(',', '') for count in CHIPS)}]",
              '    y-axis "MFU (%)" 0 --> 100']  # fmt: skip
    for name in dict.fromkeys(one["chip"] for one in record["scaling"]):
        values = [f"{100 * one['mfu']:.1f}" for one in record["scaling"] if one["chip"] == name]
        lines.append(f"    line [{', '.join(values)}]")
    return [*lines, "```"]


def main() -> None:
    """Estimates, compares, and writes the record and the page."""
    began = time.perf_counter()
    rows = [compared(row) for row in ROWS]
    held_out = [compared(row) for row in HELD_OUT]
    others = [compared(row) for row in OTHERS]
    record = {
        "efficiency": EFFICIENCY,
        "rows": rows,
        "held_out": held_out,
        "others": others,
        "agreement": agreement(
            [one for one in rows if one["published"]["unit"] != "s" or one["chip"] == "v6e"]
        ),
        "agreement_held_out": agreement(held_out),
        "scaling": scaling(),
        "seconds": time.perf_counter() - began,
    }
    write("plan", record)
    page(record)
    for one in (*rows, *held_out, *others):
        print(f"{one['model']:14} {one['chip']:4} {one['published_seconds']:7.3f} s published, "
              f"{one['estimated_seconds']:7.3f} estimated, {one['off']:+.0%}")  # fmt: skip
    print(record["agreement"], record["agreement_held_out"])


if __name__ == "__main__":
    main()
