"""What the results say, as rows of a table: what, measured, against, script."""

from __future__ import annotations

import json
from pathlib import Path

from cells import RESULTS, Row, closely, load, percent, points, pytorch, quality, times
from rows_of_machines import machine_rows
from rows_of_smaller_models import compression_rows

ACCURACY = "measure_accuracy.py"

PUBLISHED = {
    "mnist1d_linear": "32 % (logistic regression)",
    "mnist1d_mlp": "68 % (MLP)",
    "mnist1d_cnn": "94 % (CNN)",
    "mnist1d_gru": "91 % (GRU)",
}


def accuracy_rows() -> list[Row]:
    """Returns the rows about the bundled configs."""
    found = []
    for path in sorted(RESULTS.glob("accuracy_*.json")):
        record = json.loads(path.read_text())
        name = Path(record["config"]).stem
        seconds = record["wall_seconds"]["median"]
        found.append(
            (
                f"[{name}]({record['config']}), {len(record['seeds'])} seeds",
                f"{quality(record)}, {seconds:.0f} s a run",
                PUBLISHED.get(name, ""),
                ACCURACY,
            )
        )
    mnist = load("mnist")
    if mnist:
        both = mnist["test_accuracy"]
        found.append(
            (
                f"[mnist_cnn]({mnist['config']}), {len(mnist['seeds'])} seeds",
                f"{closely(both['augmented'])} test accuracy; gain {points(mnist['gain'], 2)}",
                f"the same without augmentation, {100 * both['plain']['mean']:.2f} %",
                "measure_mnist.py",
            )
        )
    resnet = load("mnist_resnet")
    if resnet:
        found.append(
            (
                f"[mnist_resnet]({resnet['config']}), {len(resnet['seeds'])} seeds",
                f"{closely(resnet['test_accuracy']['last'])} test accuracy",
                f"its weights that are best on the validation split: "
                f"{closely(resnet['test_accuracy']['best'])}",
                "measure_mnist.py",
            )
        )
    masks = load("segmentation")
    if masks:
        seeds, iou = len(masks["seeds"]), masks["test"]["mean_iou"]
        spread = f" ± {100 * iou['std']:.1f}" if seeds > 1 else ""
        found.append(
            (
                f"[shapes_unet]({masks['config']}), {seeds} seed{'s' if seeds > 1 else ''}",
                f"{100 * iou['mean']:.1f}{spread} % test mean IoU in {masks['steps']:,} steps",
                "",
                "measure_segmentation.py",
            )
        )
    return found


def training_rows() -> list[Row]:
    """Returns the rows about what training costs."""
    found = []
    fit = load("fit")
    if fit:
        for name, record in fit["experiments"].items():
            found.append(
                (
                    f"examples/s of `fit`, {name}, logging and evaluation on",
                    times(record["ratio"], 2),
                    "a bare jitted scan of the same step",
                    "measure_fit.py",
                )
            )
    torch = load("torch")
    if torch:
        for name, record in torch["experiments"].items():
            found.append(
                (
                    f"examples/s of `fit`, {name}",
                    times(record["ratio"], 1),
                    pytorch(torch, record),
                    "measure_torch.py",
                )
            )
    step = load("step")
    if step:
        for name, record in step["models"].items():
            found.append(
                (
                    f"training steps/s alone, {name}",
                    times(record["ratio"], 2),
                    pytorch(step, record),
                    "measure_step.py",
                )
            )
    memory = load("memory")
    if memory:
        for name, policies in memory["steps"].items():
            best = min(policies, key=lambda policy: policies[policy]["ratio"])
            found.append(
                (
                    f"what a training step keeps, {name}, remat={best!r}",
                    f"{policies[best]['ratio']:.2f} ×",
                    f"remat='none', {policies['none']['temporary_bytes'] / 2**20:.0f} MiB",
                    "measure_memory.py",
                )
            )
    start = load("start")
    if start:
        counted = [record["compilations"] for record in start["compilations"].values()]
        found.append(
            (
                "compilations over 10 values of every float",
                str(max(counted)),
                "",
                "measure_start.py",
            )
        )
        seconds = start["help_seconds"]["median"]
        found.append(("`jdlopt --help`", f"{seconds:.2f} s", "", "measure_start.py"))
    return found


def study_rows() -> list[Row]:
    """Returns the rows about studies."""
    study, script = load("study"), "measure_study.py"
    if not study:
        return []
    found = []
    for name, record in study["studies"].items():
        seconds, ratio = record["jdlopt"]["seconds"]["median"], record["ratio"]
        what = f"{record['trials']} trials of {name}, 20 epochs each, whole process"
        count = record["optuna"]["processes"]
        found.append(
            (
                what,
                f"{seconds:.0f} s; {ratio['median']:.1f} × faster",
                f"Optuna with PyTorch eager, {count} processes",
                script,
            )
        )
        if "keras" in record:
            keras = record["keras"]
            peer = f"KerasTuner with Keras on jax, from {keras['measured_trials']} trials"
            found.append((what, f"{keras['ratio']:.1f} × faster", peer, script))
        share = record["outside_share"]["median"]
        found.append((f"{name}: neither training nor compiling", f"{share:.0%}", "", script))
    growth = study["growth"]
    if growth:
        found.append(
            (
                "1,000 trials of mnist1d_mlp",
                f"{growth['many']['seconds']:.0f} s; {growth['against_linear']:.2f} × 1000/64",
                f"64 trials, {growth['few']['seconds']:.0f} s",
                script,
            )
        )
    return found


def diagnosis_rows() -> list[Row]:
    """Returns the rows about what diagnosis finds."""
    found, script = load("diagnose"), "measure_diagnose.py"
    if not found:
        return []
    return [
        (
            f"runs with a planted fault, of {found['faults']} kinds, that `jdlopt diagnose` names "
            "first",
            f"{found['fault_runs_right']} of {found['fault_runs']}",
            "",
            script,
        ),
        (
            "sound runs in which it finds nothing serious",
            f"{found['sound_runs_without_serious']} of {found['sound_runs']}",
            "",
            script,
        ),
    ]


def evidence_rows() -> list[Row]:
    """Returns the rows about what studies find and whether comparisons are honest."""
    found = []
    search = load("search")
    for name, record in (search or {}).get("studies", {}).items():
        minutes = search["seconds"] / 60 if search else 0
        studies = len(record["jdlopt"]["studies"])
        found.append(
            (
                f"best validation accuracy of {name} in {minutes:.0f} minutes, {studies} studies",
                f"{percent(record['jdlopt']['best'])}; {points(record['gain'])}",
                f"Optuna's TPE with PyTorch, pruned: {percent(record['optuna']['best'])}",
                "measure_search.py",
            )
        )
    compared, script = load("compare") or {}, "measure_compare.py"
    for metric, record in compared.get("honesty", {}).get("metrics", {}).items():
        wrong, kinds = record["false_positives"], ("sequential", "fixed")
        count = wrong["fixed"]["comparisons"]
        different = ", ".join(f"{wrong[kind]['share']:.1%}" for kind in kinds)
        found.append(
            (
                f"{count} comparisons of a config with itself, {metric}: sequential, fixed",
                f"{different} called different",
                "5 % allowed",
                script,
            )
        )
        for one in record["planted"]:
            seen, claimed = (
                ", ".join(f"{one[kind][name]:.0%}" for kind in kinds)
                for name in ("share", "claimed")
            )
            found.append(
                (
                    f"a planted gain of {one['gain']:.3f} in {metric}: sequential, fixed",
                    f"found in {seen} of {count}",
                    f"{claimed} claimed",
                    script,
                )
            )
    speed = compared.get("speed")
    if speed:
        seconds = {name: one["mean"] for name, one in speed["seconds"].items()}
        what = "10 seeds of two MLPs on MNIST-1D compared, whole process"
        measured = f"{seconds['compare']:.0f} s; {{:.2f}} × the time"
        for ratio, peer in (
            (speed["of_train"], f"20 × `jdlopt train`, {seconds['train']:.0f} s"),
            (speed["of_fit"], f"20 × `fit` in one process, {seconds['fit']:.0f} s"),
        ):
            found.append((what, measured.format(ratio), peer, script))
    transfer = load("transfer")
    if transfer:
        found.append(
            (
                f"MiniLM fine-tuned for {transfer['steps']} steps on {transfer['task']}, "
                f"{len(transfer['gain']['values'])} seeds",
                f"{percent(transfer['pretrained'])} test accuracy; {points(transfer['gain'])}",
                f"the same from scratch, {percent(transfer['scratch'])}",
                "measure_transfer.py",
            )
        )
    return found + improve_rows()


def improve_rows() -> list[Row]:
    """Returns the rows about what `improve` makes of plain configs."""
    parts, found = (load("improve") or {}).get("parts", {}), []
    for name, record in parts.items():
        if name == "mnist1d":
            if not record["improved"]:
                continue
            count, minutes = len(record["ours"]), record["seconds"] / 60
            trials = sum(one["trials"] for one in record["peer"]) / count
            reached = (
                f"{100 * record['baseline']['mean']:.1f} → "
                f"{100 * record['improved']['mean']:.1f} % test accuracy"
            )
            if count > 1:
                reached += f"; {points(record['gain'])}"
            found.append(
                (
                    f"`improve` of a plain MLP on MNIST-1D, {minutes:.0f} minutes, "
                    f"{count} {'repetition' if count == 1 else 'repetitions'}",
                    reached,
                    f"Optuna's TPE with PyTorch, {trials:.0f} trials without augmentation: "
                    f"{100 * record['optuna']['mean']:.1f} %",
                    "measure_improve.py",
                )
            )
            continue
        model, data = ("CNN", "MNIST-1D") if name == "mnist1d_cnn" else ("MLP", name)
        what = f"`improve` of a plain {model} on {data}, {record['budget'] / 60:.0f} minutes"
        test = record["test"]
        if not test or not test["effect"]:
            found.append((what, "nothing adopted", "", "measure_improve.py"))
            continue
        low, high = test["effect"]["interval"]
        before, after = (sum(test[side]) / len(test[side]) for side in ("baseline", "improved"))
        if test["metric"] == "test/accuracy":
            reached = f"{100 * before:.1f} → {100 * after:.1f} % test accuracy; better by "
            reached += f"{100 * low:.1f} to {100 * high:.1f} points"
        else:
            name = test["metric"].partition("/")[2].upper()
            reached = f"{before:.3g} → {after:.3g} test {name}; better by {low:.2g} to {high:.2g}"
        found.append((what, reached, "", "measure_improve.py"))
    return found


def data_rows() -> list[Row]:
    """Returns the rows about data."""
    found = []
    augment = load("augment")
    if augment:
        libraries = {
            "torchvision": f"torchvision {augment['torchvision'].partition('+')[0]} v2, 2 workers",
            "keras": f"Keras {augment['keras']} layers on jax",
        }
        for way, record in augment["ways"].items():
            what = "RandAugment" if way == "rand_augment" else f"crop, flip, rotate ({way}), "
            what += "" if way == "rand_augment" else "brightness, cutout"
            for peer, ratio in record["ratio"].items():
                found.append(
                    (
                        f"augmented images/s, 32×32×3, {what}",
                        times(ratio, 0),
                        libraries[peer],
                        "measure_augment.py",
                    )
                )
    stream = load("stream")
    if stream:
        for way, record in stream["ways"].items():
            if "data_wait_share" in record:
                waited, lost = record["data_wait_share"]["median"], record["lost"]["median"]
                found.append(
                    (
                        f"a 2-D CNN on MNIST, streamed by {way}: time waiting for data",
                        f"{waited:.1%}; {lost:+.0%} time a step",
                        "in memory; on these cores reading takes its share of both",
                        "measure_stream.py",
                    )
                )
    check = load("check")
    if check:
        # flipped labels can't all be told from right ones, and are looked for in a sample
        kinds = [kind for name, kind in check["kinds"].items() if name != "label_noise"]
        planted, told = sum(k["planted"] for k in kinds), sum(k["found"] for k in kinds)
        found.append(
            (
                f"`data check` and preprocessing of {check['rows']:,} × {check['columns']} damaged "
                "values",
                f"{check['seconds']['median']:.1f} s; {told:,} of {planted:,} damages found",
                "",
                "measure_check.py",
            )
        )
    return found


def table_rows() -> list[Row]:
    """Returns the rows about what `init` writes for tables."""
    record = load("tables")
    if not record:
        return []
    found, good = [], []
    for name, one in sorted(record["tables"].items(), key=lambda item: item[1]["rows"]):
        metric, better = one["metric"], one["differences"][one["metric"]]
        low, high = better["interval"]
        ours, theirs = one["jdlopt"][metric], one["boosting"][metric]
        if metric == "accuracy":
            value = f"{closely(ours)} test accuracy; better by {100 * better['better_by']:.1f} "
            value += f"points ({100 * low:.1f} to {100 * high:.1f})"
            peer = closely(theirs)
        else:
            value = f"{ours['mean']:.4g} ± {ours['std']:.2g} test RMSE; better by "
            value += f"{better['better_by']:.2g} ({low:.2g} to {high:.2g})"
            peer = f"{theirs['mean']:.4g} ± {theirs['std']:.2g}"
        if len(one["seeds"]) >= 5:  # the interval of fewer would hold anything
            good.append(better["at_least_as_good"])
        seconds = one["seconds"]["median"]
        what = f"`init` and `train`: {name}, {one['rows']:,} rows, {one['columns']} columns"
        what += f", {len(one['seeds'])} seeds, {seconds:.0f} s a run"
        found.append((what, value, f"HistGradientBoosting: {peer}", "measure_tables.py"))
    improved = [
        (name, one["improved"]["differences"][one["metric"]], one["metric"])
        for name, one in record["tables"].items()
        if "improved" in one
    ]
    for name, better, metric in improved:
        scale, unit = (100, "points of accuracy") if metric == "accuracy" else (1, "RMSE")
        low, high = (scale * end for end in better["interval"])
        value = f"better by {scale * better['better_by']:.3g} {unit} ({low:.3g} to {high:.3g})"
        minutes = record["tables"][name]["improved"]["budget"] / 60
        what = f"`improve`, {minutes:.0f} min, then a last training on every row: {name}"
        found.append((what, value, "HistGradientBoosting", "measure_tables.py"))
    total = f"at least as good, within the interval, on {sum(good)} of {len(good)}"
    what = "`init` and `train` on public tables, those with five seeds"
    return [(what, total, "HistGradientBoosting, its defaults", "measure_tables.py"), *found]


def serving_rows() -> list[Row]:
    """Returns the rows about answering requests."""
    serving = load("serving")
    found: list[Row] = []
    for name, record in (serving or {"models": {}})["models"].items():
        own, bare = record["jdlopt"], record["bare onnxruntime"]
        for which in ("p50", "p99"):
            found.append(
                (
                    f"`jdlopt serve`, {name}, 8 requests at a time: {which}",
                    f"{own[f'{which}_ms']['median']:.2f} ms",
                    f"onnxruntime behind starlette, without batching: "
                    f"{bare[f'{which}_ms']['median']:.2f} ms",
                    "measure_serving.py",
                )
            )
        told = record["malformed"]
        found.append(
            (
                f"of {told['requests']:,} such requests, {told['malformed']} malformed: lost",
                str(told["requests"] - told["answered"]),
                f"{told['refused_with_a_reason']} malformed ones are a 400 with a reason",
                "measure_serving.py",
            )
        )
    return found


def groups() -> dict[str, list[Row]]:
    """Returns heading → rows, for whatever was measured."""
    found = {
        "The bundled configs": accuracy_rows(),
        "Training": training_rows(),
        "Studies": study_rows(),
        "Many devices and machines": machine_rows(),
        "Comparisons and the loop": evidence_rows(),
        "Diagnosis": diagnosis_rows(),
        "Data": data_rows(),
        "Tables": table_rows(),
        "Serving": serving_rows(),
        "Smaller models": compression_rows(),
    }
    return {heading: rows for heading, rows in found.items() if rows}
