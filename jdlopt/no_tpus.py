"""What a process is told where the compiler for TPUs is, to plan with, and there is no TPU."""

from __future__ import annotations

import glob
import importlib.util

CHIPS = ("/dev/accel*", "/dev/vfio/[0-9]*")
"""The devices that a TPU's host has."""
NO_TPUS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
"""Otherwise the compiler asks a server that only such hosts have, and warns on stderr of what it
did not find there. The type is that of any TPU: what is compiled for is named elsewhere."""


def settings() -> dict[str, str]:
    """Returns what keeps the compiler quiet; nothing where it is not here, or where TPUs are."""
    if importlib.util.find_spec("libtpu") is None or any(map(glob.glob, CHIPS)):
        return {}
    return dict(NO_TPUS)
