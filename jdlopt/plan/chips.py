"""The devices that a plan knows, by what bounds a step on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jdlopt.errors import UserError, listing, nearest

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One device, as its maker specifies it.

    Attributes:
      name: as a topology names it, ``v5e`` in ``v5e:4x4``.
      flops: FLOP/s of dense matrix products, by the type that is asked for.
      hbm_bytes: memory that a program can have.
      hbm_bandwidth: bytes/s to and from that memory.
      ici_bandwidth: bytes/s to the other devices of its slice (TPU) or its machine (GPU), over all
        links together, one way.
      dcn_bandwidth: bytes/s to other slices or machines, its share of the host's network.
      vector: operations/s on the numbers of vectors, outside matrix products.
      torus: dimensions of the torus that the links make, each of which has its share of them; 0: a
        switch, through which any device reaches any other at full speed.
      most: devices that those links connect at most.
    """

    name: str
    flops: Mapping[str, float]
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float
    vector: float
    torus: int
    most: int

    @property
    def is_tpu(self) -> bool:
        """Whether the TPU compiler can compile for it."""
        return self.torus > 0

    def peak(self, dtype: str) -> float:
        """Returns the FLOP/s of matrix products in a type; of an unknown one, as in float32."""
        return self.flops.get(dtype, self.flops["float32"])


def _tpu(bfloat16: float, int8: float) -> Mapping[str, float]:
    # By default jax multiplies float32 matrices on a TPU in one pass of bfloat16.
    products = {"bfloat16": bfloat16, "float16": bfloat16, "float32": bfloat16, "int8": int8}
    return MappingProxyType(products)


def _gpu(bfloat16: float, tf32: float, int8: float) -> Mapping[str, float]:
    # By default XLA multiplies float32 matrices on these GPUs in TF32. Dense, not "with sparsity".
    products = {"bfloat16": bfloat16, "float16": bfloat16, "float32": tf32, "int8": int8}
    return MappingProxyType(products)


# Vector units of TPUs: cores × 8 × 128 lanes × 4 operations × the clock ("How to scale your model",
# jax-ml.github.io/scaling-book, chapter 2): v4 two at 1.05 GHz, v5e one at 1.5, v5p two and v6e one
# at 1.75. Of GPUs: the datasheets' float32 without tensor cores.
_ALL = (
    # docs.cloud.google.com/tpu/docs/v4: 275 TFLOP/s, 32 GiB at 1,228 GB/s, six links of a 3-D torus
    # with 2,400 Gb/s together one way. Network: four chips share 200 Gb/s (jax-ml.github.io's
    # "How to scale your model", chapter 2). HBM is what the compiler leaves a program of 32 GiB.
    Chip("v4", _tpu(275e12, 275e12), int(30.75 * GIB), 1.228e12, 300e9, 6.25e9, 8.6e12, 3, 4096),
    # docs.cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 393 TOP/s, 16 GiB at 819 GB/s, four links of
    # a 2-D torus with 400 GB/s both ways, 6.4 Tb/s of network for 256 chips. libtpu 0.0.42's own
    # message of an out-of-memory says 15.75 GiB.
    Chip("v5e", _tpu(197e12, 393e12), int(15.75 * GIB), 0.819e12, 200e9, 3.125e9, 6.1e12, 2, 256),
    # docs.cloud.google.com/tpu/docs/v5p: 459 TFLOP/s, 918 TOP/s, 95 GiB at 2,765 GB/s, six links of
    # a 3-D torus with 1,200 GB/s both ways, 50 Gb/s of network a chip.
    Chip("v5p", _tpu(459e12, 918e12), int(95 * GIB), 2.765e12, 600e9, 6.25e9, 14.3e12, 3, 8960),
    # docs.cloud.google.com/tpu/docs/v6e: 918 TFLOP/s, 1,836 TOP/s, 32 GiB at 1,638 GB/s, four links
    # of a 2-D torus with 800 GB/s both ways; 100 Gb/s of network a chip. HBM as in v4's row.
    Chip("v6e", _tpu(918e12, 1836e12), int(31.25 * GIB), 1.638e12, 400e9, 12.5e9, 7.2e12, 2, 256),
    # NVIDIA's A100 datasheet (SXM, 80 and 40 GB): NVLink 600 GB/s both ways, eight in a machine; a
    # DGX has 200 Gb/s of network a GPU.
    Chip("A100", _gpu(312e12, 156e12, 624e12), 80 * 10**9, 2.039e12, 300e9, 25e9, 19.5e12, 0, 8),
    Chip(
        "A100-40GB", _gpu(312e12, 156e12, 624e12), 40 * 10**9, 1.555e12, 300e9, 25e9, 19.5e12, 0, 8
    ),
    # NVIDIA's H100 datasheet (SXM, figures "with sparsity" halved): NVLink 900 GB/s both ways; a
    # DGX has 400 Gb/s of network a GPU.
    Chip("H100", _gpu(989e12, 494e12, 1979e12), 80 * 10**9, 3.35e12, 450e9, 50e9, 67e12, 0, 8),
    # NVIDIA's H200 datasheet (SXM): an H100 with 141 GB at 4.8 TB/s.
    Chip("H200", _gpu(989e12, 494e12, 1979e12), 141 * 10**9, 4.8e12, 450e9, 50e9, 67e12, 0, 8),
    # NVIDIA's DGX B200 datasheet, an eighth of it, dense: NVLink 1,800 GB/s both ways.
    Chip("B200", _gpu(2250e12, 1125e12, 4500e12), 180 * 10**9, 8.0e12, 900e9, 50e9, 75e12, 0, 8),
    # NVIDIA's L4 datasheet (figures "with sparsity" halved): PCIe 4.0 × 16 alone; Google's
    # g2-standard-96 has 100 Gb/s of network for eight.
    Chip("L4", _gpu(121e12, 60e12, 242e12), 24 * 10**9, 0.3e12, 32e9, 1.56e9, 30.3e12, 0, 8),
    # NVIDIA's V100 datasheet (SXM2): half precision alone in tensor cores, NVLink 300 GB/s both
    # ways; AWS's p3dn.24xlarge has 100 Gb/s of network for eight.
    Chip(
        "V100",
        MappingProxyType({"float16": 125e12, "bfloat16": 15.7e12, "float32": 15.7e12}),
        32 * 10**9,
        0.9e12,
        150e9,
        1.56e9,
        15.7e12,
        0,
        8,
    ),
)

CHIPS: Mapping[str, Chip] = MappingProxyType({chip.name: chip for chip in _ALL})
"""Every known chip by its name."""


def find_chip(name: str) -> Chip:
    """Returns a chip by its name, in whatever case it is written.

    Raises:
      UserError: there is none of that name.

    Example:
      >>> find_chip("h100").name, find_chip("v5p").peak("bfloat16")
      ('H100', 459000000000000.0)
    """
    found = {known.lower(): chip for known, chip in CHIPS.items()}.get(name.lower())
    if found is None:
        raise UserError(
            f"--topology: {name!r} is no chip that is known.{nearest(name, CHIPS)} Known: "
            f"{listing(CHIPS)}."
        )
    return found
