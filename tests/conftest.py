"""What every test runs under: eight fake devices on the CPU, and hypothesis without a clock."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile

# Before anything imports jax: it reads these once.
os.environ["JAX_PLATFORMS"] = "cpu"
flags = os.environ.get("XLA_FLAGS", "")
for flag in (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",  # compiles four times faster, to the same numbers
):
    if flag.partition("=")[0] not in flags:
        flags = f"{flags} {flag}".strip()
os.environ["XLA_FLAGS"] = flags
# Many tests compile the same programs, some in processes of their own; a new folder each session.
# pytest-xdist's workers inherit the session's.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jdlopt-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# A traced program is many small objects, most of which live: looking through them all as often as
# Python does by default takes 6 % of the time of the tests.
gc.set_threshold(100_000, 20, 50)

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

# The shapes in these rooms' signatures are checked at each call, so while a program is traced. What
# takes records is left out: one of them would be read to be checked.
CHECKED = """
    data.augment data.check data.cleaning data.coders data.columns data.hold_out data.key_split
    data.labelled data.preprocess data.sampling data.split data.stratification data.targets
    data.text data.text_cleaning data.vocabulary data.waveforms
    evidence.statistics kernels losses metrics models optim tasks train.step
"""
jaxtyping.install_import_hook(
    [f"jdlopt.{place}" for place in CHECKED.split()], "signatures.checked"
)

hypothesis.settings.register_profile(
    "jdlopt",
    deadline=None,  # the first example compiles
    derandomize=True,  # the same examples on every machine: a failure is a change's, not a draw's
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("jdlopt")


@pytest.fixture
def unchecked_types():
    """Leaves out the check of signatures, for what is refused where none is installed."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
