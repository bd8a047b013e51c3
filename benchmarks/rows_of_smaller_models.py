"""What the results say of smaller models, as rows of a table: what, measured, against, script."""

from __future__ import annotations

from statistics import fmean as mean
from typing import Any

from cells import Row, load, percent, points, times


def slicing_rows() -> list[Row]:
    """Returns the rows about models whose channels were cut out."""
    sliced, script = load("slicing"), "measure_slicing.py"
    if not sliced:
        return []
    found: list[Row] = []
    for batch, record in sliced["times"].items():
        what = f"a ResNet 32-64-128 cut to half its width, int8 ONNX, {batch}, one core"
        ms = record["ms"]["int8 ONNX, half"]["median"]
        ratios = record["ratios"]
        for name, peer in (
            ("against its own jit", "the whole one under `jit`"),
            ("against torch-pruning", "torch-pruning's half one, PyTorch eager"),
        ):
            found.append((what, f"{ms:.2f} ms; {times(ratios[name], 1)}", peer, script))
    accuracy = sliced["accuracy"]
    found.append(
        (
            f"the same trained {sliced['steps']} steps on MNIST, cut, trained as many, "
            f"{len(accuracy['jdlopt, half']['values'])} seeds",
            f"{percent(accuracy['jdlopt, half, int8'])} test accuracy; "
            f"{points(sliced['ahead_of_torch_pruning'])}",
            f"torch-pruning's {percent(accuracy['torch, half'])}; whole, "
            f"{percent(accuracy['jdlopt, whole'])} here, {percent(accuracy['torch, whole'])} there",
            script,
        )
    )
    return found


def margin_rows() -> list[Row]:
    """Returns the rows about how often a loss of the margin is accepted."""
    margin = load("margin")
    if not margin:
        return []
    power = {(row["noise"], row["seeds"]): row["accepted_without_loss"] for row in margin["rows"]}
    value = (
        f"accepted in at most {100 * margin['worst']:.1f} % of {margin['draws']} draws each; of "
    )
    value += f"no loss, {100 * power[0.25, 5]:.0f} % are accepted on 5 seeds where pairs differ by "
    value += "a quarter of the margin"
    what = "`compress`: losses of exactly the margin, 24 noise levels and seed counts"
    return [(what, value, "5 % are allowed", "measure_margin.py")]


def export_rows() -> list[Row]:
    """Returns the rows about exported files."""
    record, script = load("export"), "measure_export.py"
    if not record:
        return []
    errors = record["relative_error"]
    found: list[Row] = []
    for name, peer in (("stablehlo", "`jit`"), ("onnx", "`jit`, at batches of 1, 2 and 5")):
        worst = max(one[name] for one in errors.values())
        what = f"{len(errors)} models of every family as {name}: the largest relative error"
        found.append((what, "0" if worst == 0 else f"{worst:.1e}", peer, script))
    seeds = record["mnist_resnet"]["seeds"]
    lost = [one["points_lost"] for one in seeds]
    smaller = [one["bytes"]["float32"] / one["bytes"]["int8"] for one in seeds]
    value = f"{mean(lost):.3f} points of test accuracy lost ({min(lost):.2f} to {max(lost):.2f}), "
    value += f"{mean(smaller):.1f} × smaller"
    what = f"mnist_resnet as int8 ONNX, {len(seeds)} seeds"
    found.append((what, value, "the float32 file", script))
    for batch in seeds[0]["milliseconds"]:
        for name, peer in (("float32", "ONNX Runtime in float32"), ("jit", "`jit`")):
            ratios = [
                one["milliseconds"][batch][name]["median"]
                / one["milliseconds"][batch]["int8"]["median"]
                for one in seeds
            ]
            what = f"mnist_resnet as int8 ONNX, batch {batch}, one core"
            found.append((what, f"{mean(ratios):.2f} × as fast", peer, script))
    return found


def lenet_rows() -> list[Row]:
    """Returns the rows about LeNet-300-100, sparse and in few bits."""
    record, script = load("lenet"), "measure_lenet.py"
    if not record:
        return []
    sparse, bits = record["pruning"], record["bits"]
    seeds, dense = len(record["dense"]["values"]), record["dense"]["mean"]
    peer = f"{dense:.2f} % dense, {seeds} seeds, {record['epochs']} epochs"
    found: list[Row] = []

    def told(one: dict[str, Any]) -> str:
        low, high = one["interval"]
        return f"{one['mean']:.2f} points of test accuracy lost ({low:.2f} to {high:.2f})"

    for sparsity in ("0.9", "0.95", "0.98"):
        what = f"LeNet-300-100 on MNIST, {100 * float(sparsity):.0f} % of its weights pruned"
        found.append((what, told(sparse["lost"][sparsity]), peer, script))
    speed = record.get("speed")
    if speed:
        many = "epoch" if speed["epochs"] == 1 else f"{speed['epochs']} epochs"
        what = f"the same: {many} of {speed['runs']} runs of 8 sparsities, compiled and evaluated"
        for name, one in speed["peers"].items():
            value = f"{speed['seconds']['median']:.0f} s; {times(one['faster'], 1)}"
            against = f"torch.nn.utils.prune, PyTorch {speed['torch']}, {name}"
            found.append((what, value, against, script))
        steps = speed["compilations_of_the_step"]
        found.append(("the same: compilations of the training step", str(steps), "", script))
    for how in ("after_training", "while_training"):
        for number, one in bits[how].items():
            what = f"the same in {float(number):.0f}-bit kernels and 8-bit inputs, "
            found.append((what + how.replace("_", " "), told(one), peer, script))
    return found


def low_rank_rows() -> list[Row]:
    """Returns the rows about LeNet-300-100 whose kernels are two factors."""
    record, script = load("low_rank"), "measure_low_rank.py"
    if not record:
        return []
    dense, seeds = 100 * record["baseline"]["value"], len(record["baseline"]["values"])
    peer = f"{dense:.2f} % whole, {seeds} seeds, {record['epochs']} epochs"
    kinds = {"half_width": "LeNet-300-100 on MNIST, half as wide"}
    found: list[Row] = []
    for name, one in record["candidates"].items():
        lost, (low, high) = one["lost"], (100 * end for end in one["lost"]["interval"])
        energy = name.rpartition("_")[2]
        what = f"LeNet-300-100 on MNIST, factors of {energy} % of each kernel's energy"
        value = (
            f"{100 * one['macs']:.0f} % of the multiplications; {100 * lost['mean']:.2f} points of "
            f"validation accuracy lost ({low:.2f} to {high:.2f}, {lost['seeds']} seeds)"
        )
        found.append((kinds.get(name, what), value, peer, script))
    return found


def distillation_rows() -> list[Row]:
    """Returns the rows about a perceptron that learns from a better model."""
    record, script = load("distillation"), "measure_distillation.py"
    found: list[Row] = []
    for way in ("without augmentation", "with shifts"):
        part = (record or {}).get(way)
        if not part:
            continue
        alone = part["student"]
        for name, one in part["teachers"].items():
            gain = one["test_gain"]
            low, high = gain["interval"]
            found.append(
                (
                    f"a perceptron on MNIST-1D taught by {name}, {way}, "
                    f"{len(gain['values'])} seeds",
                    f"{gain['mean']:+.1f} points of test accuracy ({low:+.1f} to {high:+.1f}); "
                    f"`compare`: {one['decision']}",
                    f"on the labels alone, {alone['mean']:.1f} %",
                    script,
                )
            )
    return found


def compression_rows() -> list[Row]:
    """Returns the rows about smaller models."""
    return [
        *margin_rows(),
        *lenet_rows(),
        *low_rank_rows(),
        *distillation_rows(),
        *slicing_rows(),
        *export_rows(),
    ]
