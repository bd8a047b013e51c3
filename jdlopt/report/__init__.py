"""Reports: one HTML file of a run, a study or a comparison, to be read without a network."""

from __future__ import annotations

from pathlib import Path

from jdlopt.errors import WorkdirError


def write_report(workdir: str | Path, *, allow_code: bool = False) -> Path:
    """Writes ``report.html`` of a run's, a study's or a comparison's directory; returns its path.

    Of a compression it is ``compress.html``.

    Args:
      workdir: the directory.
      allow_code: import the parts that a run's config names by dotted path, to show what its model
        predicts.

    Raises:
      WorkdirError: the directory holds none of them, or a run of code that is not allowed.
    """
    folder = Path(workdir)
    if (folder / "study.json").is_file():
        from jdlopt.report import study

        return study.write_report(folder)
    if (folder / "improve.json").is_file():
        from jdlopt.report import improvement

        return improvement.write_report(folder)
    if (folder / "compress.json").is_file():
        from jdlopt.report import compression

        return compression.write_page(folder)
    for name in ("compare", "ablate"):
        if (folder / f"{name}.json").is_file():
            from jdlopt.report import comparison

            written = {"compare": comparison.write_comparison, "ablate": comparison.write_ablation}
            return written[name](folder)
    if (folder / "config.json").is_file():
        from jdlopt.report import run

        return run.write_report(folder, allow_code)
    if (folder / "plan.json").is_file():
        from jdlopt.report import plan

        return plan.write_page(folder)
    verbs = "`jdlopt train`, `tune`, `compare`, `ablate`, `improve` or `compress`"
    hint = f"Name a directory that {verbs} was given."
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such directory"
        raise WorkdirError(f"{folder}: {what}. {hint}")
    raise WorkdirError(
        f"{folder}: is neither a run's directory (there is no config.json) nor a study's (there is "
        f"no study.json), nor a comparison's. {hint}"
    )
