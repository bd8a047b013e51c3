"""Options are checked by their fields: the same mistake says the same in Python and on a line."""

import subprocess
import sys

import pytest

from jdlopt.cli import main
from jdlopt.cli.flags import parser, read_flags
from jdlopt.cli.verbs import VERBS
from jdlopt.config.options import nested_options, options_of
from jdlopt.errors import UserError
from jdlopt.evidence.options import AblationOptions, ComparisonOptions, ImprovementOptions
from jdlopt.study.options import Options as StudyOptions

WORDS = {
    StudyOptions: ["tune", "--workdir=w", "--config=c.py"],
    ComparisonOptions: ["compare", "a.py", "b.py", "--workdir=w"],
    AblationOptions: ["ablate", "--config=c.py", "--workdir=w", "--techniques=dropout"],
    ImprovementOptions: ["improve", "--config=c.py", "--workdir=w"],
}
MISTAKES = [
    (StudyOptions, {"trials": 0}, ["--trials=0"], "--trials: must be at least 1, found 0."),
    (StudyOptions, {"folds": "x"}, ["--folds=x"],
     "--folds: expected int or None at least 2, found str 'x'."),
    (StudyOptions, {"sampler": "tpee"}, ["--sampler=tpee"],
     "--sampler: 'tpee' is unknown. Did you mean 'tpe'?"),
    (StudyOptions, {"until": "loss"}, ["--until=loss"],
     "--until: 'loss' can't be read; write it as"),
    (StudyOptions, {"budget": 0.0}, ["--budget=0s"],
     "--budget: must be greater than 0, found 0.0."),
    (ComparisonOptions, {"seeds": 1}, ["--seeds=1"], "--seeds: must be at least 2, found 1."),
    (ComparisonOptions, {"level": 1.5}, ["--level=1.5"],
     "--level: must be in [0.5, 1), found 1.5."),
    (ComparisonOptions, {"least": "x"}, ["--least=x"],
     "--least: expected float at least 0, found str 'x'."),
    (ComparisonOptions, {"first_seed": -1}, ["--first-seed=-1"],
     "--first-seed: must be at least 0"),
    (AblationOptions, {"tune_seeds": 0}, ["--tune-seeds=0"], "--tune-seeds: must be at least 1"),
    (ImprovementOptions, {"confirm": 91}, ["--confirm=91"],
     "--confirm: must be in [3, 90], found 91."),
    (ImprovementOptions, {"techniques": ("droput",)}, ["--techniques=droput"],
     "Did you mean 'dropout'?"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "keys", "words", "says"), MISTAKES)
def test_a_mistake_says_the_same_in_python_and_on_the_command_line(
    kind, keys, words, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_text("get_config = get_space = dict\n")
    with pytest.raises(UserError) as told:
        kind(**keys).check()
    assert says in str(told.value)
    assert main([*WORDS[kind], *words]) == 2
    assert capsys.readouterr().err == f"jdlopt: {told.value}\n"


@pytest.mark.parametrize("kind", WORDS)
def test_without_flags_the_options_are_the_class_s_own_defaults(kind):
    flags = read_flags(parser().parse_args(WORDS[kind]), {})[1]
    assert flags.options == kind()


def test_flags_are_read_as_the_types_of_their_fields():
    words = [
        "--trials=8", "--budget=1h30m", "--objective=n_params", "--objective=validation/loss,x",
        "--halving=asha", "--study=12", "--no-report", "--json",
    ]  # fmt: skip
    flags = read_flags(parser().parse_args([*WORDS[StudyOptions], *words]), {"seed": "3"})[1]
    assert flags.options == StudyOptions(
        trials=8,
        budget=5400.0,
        objectives=("n_params", "validation/loss", "x"),
        halving="asha",
        study_name="12",
    )
    assert (flags.json, flags.report, flags.workdir) == (True, False, "w")
    assert flags.overrides == {"seed": "3"}


def test_every_flag_says_what_it_is_for_and_has_one_meaning():
    for words, verb in VERBS.items():
        kinds = [verb.flags, *nested_options(verb.flags).values()]
        spelt = [option.spelt for kind in kinds for option in options_of(kind)]
        assert len(spelt) == len(set(spelt)), words
        assert all(option.flag.help for kind in kinds for option in options_of(kind)), words


def test_help_of_every_verb_imports_nothing_heavy():
    ask = """
import sys
from jdlopt.cli import main
from jdlopt.cli.verbs import VERBS
for words in VERBS:
    try:
        main([*words.split(), "--help"])
    except SystemExit as end:
        assert end.code == 0
print("imported:", sorted({"jax", "flax", "numpy", "rich", "ml_collections"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"
