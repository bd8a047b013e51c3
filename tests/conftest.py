"""What every test runs under: eight fake devices on the CPU, and hypothesis without a clock."""

from __future__ import annotations

import os

# Before anything imports jax: it reads these once.
os.environ["JAX_PLATFORMS"] = "cpu"
flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()

import hypothesis  # noqa: E402

hypothesis.settings.register_profile(
    "jdlopt",
    deadline=None,  # the first example compiles
    derandomize=True,  # the same examples on every machine: a failure is a change's, not a draw's
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("jdlopt")
