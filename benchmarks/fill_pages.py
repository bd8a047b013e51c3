"""Fills README's table and the configs' first lines from `results/*.json`.

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

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ACCURACY = "measure_accuracy.py"


def load(name: str) -> dict[str, Any] | None:
    """Returns a recorded result, or None if it was never measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def where(record: dict[str, Any]) -> str:
    """Returns the machine in words."""
    return f"{record['cores']} cores of an {record['cpu']}"


def percent(found: dict[str, float]) -> str:
    """Returns mean ± standard deviation of an accuracy."""
    return f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f} %"


def quality(record: dict[str, Any]) -> str:
    """Returns a config's test metric in words."""
    metrics = record["metrics"]
    if "test/accuracy" in metrics:
        return f"{percent(metrics['test/accuracy'])} test accuracy"
    rmse, r2 = metrics["test/rmse"], metrics["test/r2"]
    return f"{rmse['mean']:.1f} ± {rmse['std']:.1f} test RMSE (R² {r2['mean']:.2f})"


PUBLISHED = {
    "mnist1d_linear": "32 % (logistic regression)",
    "mnist1d_mlp": "68 % (MLP)",
    "mnist1d_cnn": "94 % (CNN)",
    "mnist1d_gru": "91 % (GRU)",
}


def rows() -> list[tuple[str, str, str, str]]:
    """Returns README's table: what, measured, against, script."""
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
    fit = load("fit")
    if fit:
        for name, record in fit["experiments"].items():
            ratio = record["ratio"]
            found.append(
                (
                    f"examples/s of `fit`, {name}, logging and evaluation on",
                    f"{ratio['median']:.2f} × ({ratio['min']:.2f} to {ratio['max']:.2f})",
                    "a bare jitted scan of the same step",
                    "measure_fit.py",
                )
            )
    torch = load("torch")
    if torch:
        for name, record in torch["experiments"].items():
            ratio = record["ratio"]
            found.append(
                (
                    f"examples/s of `fit`, {name}",
                    f"{ratio['median']:.1f} × ({ratio['min']:.1f} to {ratio['max']:.1f})",
                    f"PyTorch {torch['torch'].partition('+')[0]} eager, "
                    f"{record['peer'].partition(', ')[2]}",
                    "measure_torch.py",
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
    found += study_rows()
    found += evidence_rows()
    found += diagnosis_rows()
    found += data_rows()
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


def study_rows() -> list[tuple[str, str, str, str]]:
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


def diagnosis_rows() -> list[tuple[str, str, str, str]]:
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


def evidence_rows() -> list[tuple[str, str, str, str]]:
    """Returns the rows about what studies find and whether comparisons are honest."""
    found = []
    search = load("search")
    for name, record in (search or {}).get("studies", {}).items():
        gain, (low, high) = record["gain"]["mean"], record["gain"]["interval"]
        minutes = search["seconds"] / 60 if search else 0
        studies = len(record["jdlopt"]["studies"])
        found.append(
            (
                f"best validation accuracy of {name} in {minutes:.0f} minutes, {studies} studies",
                f"{percent(record['jdlopt']['best'])}; {100 * gain:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f})",
                f"Optuna's TPE with PyTorch, pruned: {percent(record['optuna']['best'])}",
                "measure_search.py",
            )
        )
    compared, script = load("compare") or {}, "measure_compare.py"
    for metric, record in compared.get("honesty", {}).get("metrics", {}).items():
        wrong, planted = record["false_positives"], record["planted"]
        for kind in ("sequential", "fixed"):
            count = wrong[kind]["comparisons"]
            found.append(
                (
                    f"{count} comparisons of a config with itself, {metric}, {kind}",
                    f"{wrong[kind]['share']:.1%} called different",
                    "5 % allowed",
                    script,
                )
            )
            found.append(
                (
                    f"a planted gain of {planted['gain']:.3f} in {metric}, {kind}",
                    f"found in {planted[kind]['share']:.0%} of {count}",
                    f"{planted[kind]['claimed']:.0%} claimed",
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
        gain, (low, high) = transfer["gain"]["mean"], transfer["gain"]["interval"]
        found.append(
            (
                f"MiniLM fine-tuned for {transfer['steps']} steps on {transfer['task']}, "
                f"{len(transfer['gain']['values'])} seeds",
                f"{percent(transfer['pretrained'])} test accuracy; {100 * gain:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f})",
                f"the same from scratch, {percent(transfer['scratch'])}",
                "measure_transfer.py",
            )
        )
    return found + improve_rows()


def improve_rows() -> list[tuple[str, str, str, str]]:
    """Returns the rows about what `improve` makes of plain configs."""
    parts, found = (load("improve") or {}).get("parts", {}), []
    for name, record in parts.items():
        if name == "mnist1d":
            if not record["improved"]:
                continue
            count, minutes = len(record["ours"]), record["seconds"] / 60
            trials = sum(one["trials"] for one in record["peer"]) / count
            found.append(
                (
                    f"`improve` of a plain MLP on MNIST-1D, {minutes:.0f} minutes, "
                    f"{count} {'repetition' if count == 1 else 'repetitions'}",
                    f"{100 * record['baseline']['mean']:.1f} → "
                    f"{100 * record['improved']['mean']:.1f} % test accuracy",
                    f"Optuna's TPE with PyTorch, {trials:.0f} trials: "
                    f"{100 * record['optuna']['mean']:.1f} %",
                    "measure_improve.py",
                )
            )
            continue
        what = f"`improve` of a plain MLP on {name}, {record['budget'] / 60:.0f} minutes"
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


def data_rows() -> list[tuple[str, str, str, str]]:
    """Returns the rows about data."""
    found = []
    mnist = load("mnist")
    if mnist:
        both, gain = mnist["test_accuracy"], mnist["gain"]
        low, high = (100 * end for end in gain["interval"])
        found.append(
            (
                f"[mnist_cnn]({mnist['config']}), {len(mnist['seeds'])} seeds",
                f"{100 * both['augmented']['mean']:.2f} ± {100 * both['augmented']['std']:.2f} % "
                f"test accuracy; gain {100 * gain['mean']:+.2f} points ({low:+.2f} to {high:+.2f})",
                f"the same without augmentation, {100 * both['plain']['mean']:.2f} %",
                "measure_mnist.py",
            )
        )
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
                        f"{ratio['median']:.0f} × ({ratio['min']:.0f} to {ratio['max']:.0f})",
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


def table() -> str:
    """Returns README's table as Markdown, with the machine above it."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    if not records:
        return ""
    machines = sorted({where(record) for record in records})
    jax = sorted({record["versions"]["jax"] for record in records})
    lines = [
        f"Measured on {' and '.join(machines)} with jax {', '.join(jax)}; medians, with the range "
        "over alternating repetitions, or mean ± standard deviation over seeds.",
        "",
        "| what | measured | against | script |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {what} | {value} | {peer} | [{script}](benchmarks/{script}) |"
        for what, value, peer, script in rows()
    ]
    return "\n".join(lines)


def reaches(record: dict[str, Any]) -> str:
    """Returns the sentence that opens a config."""
    seconds, compiling = record["wall_seconds"]["median"], record["compile_seconds"]["median"]
    text = (
        f"Reaches {quality(record)} ({len(record['seeds'])} seeds) in {seconds:.0f} s, of it "
        f"{compiling:.0f} s compiling, on {where(record)}."
    )
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
    found = {readme: filled}
    for path in sorted(RESULTS.glob("accuracy_*.json")):
        record = json.loads(path.read_text())
        page = ROOT / record["config"]
        found[page] = opened(page, reaches(record))
    mnist = load("mnist")
    if mnist:
        page, both = ROOT / mnist["config"], mnist["test_accuracy"]
        seconds = mnist["wall_seconds"]["augmented"]["min"]
        text = (
            f"Reaches {100 * both['augmented']['mean']:.2f} ± {100 * both['augmented']['std']:.2f} "
            f"% test accuracy ({len(mnist['seeds'])} seeds), and "
            f"{100 * both['plain']['mean']:.2f} % without augmentation, in {seconds / 60:.0f} "
            f"minutes on one core of an {mnist['cpu']}."
        )
        found[page] = opened(page, textwrap.fill(text, 100))
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
    stale = [path for path, text in pages().items() if path.read_text() != text]
    for path in stale:
        print(f"{'is not what the results say' if check else 'filled'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(pages()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
