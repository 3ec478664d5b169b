"""What makes CTranslate2 fast on a CPU and must happen before it loads: allocator, instructions.

Figures are from docs/benchmarks.md: `base`, int8, one 30 s window, two threads of an AMD Zen 5.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import threadpoolctl

# Of glibc's mallopt(3), malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

MALLOC_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""For a process that has threads before it can call `tune`: see there."""

CPU_INFO = Path("/proc/cpuinfo")

_LARGEST_INT = 2**31 - 1
_TOP_PAD_BYTES = 64 * 2**20

# What oneDNN's AVX-512 kernels use.
_AVX512 = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was done, in words for the log and for `doctor`."""

    allocator: str
    instructions: str


@cache
def tune() -> Tuning:
    """Tunes this process for CTranslate2, once.

    Call it before the library is imported, and before there are threads: what a thread has taken
    from an arena of malloc's own stays there, and who comes later may be given that arena too.
    """
    _use_one_blas_thread()
    return Tuning(_keep_freed_memory(), _choose_instructions())


def _use_one_blas_thread() -> None:
    """Has numpy's matrix products keep to the thread that asks: spectrograms are many at once.

    With a team of 16 threads a product, four spectrograms side by side took 14.3 ms each on a Xeon,
    and 4.9 ms with one thread (docs/benchmarks.md).
    """
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")


def _keep_freed_memory() -> str:
    """Has malloc keep what is freed: encoding takes two thirds of the time.

    The encoder frees and takes its 72 MB of attention once a layer. As mmapped blocks they are
    zeroed by the kernel each time, a fifth of a second a window. The price: memory once used is
    not given back before `give_back_memory`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return "left alone: this C library has no mallopt"
    for parameter, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _LARGEST_INT),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    ):
        if not mallopt(ctypes.c_int(parameter), ctypes.c_int(value)):
            return f"left alone: mallopt refused parameter {parameter}"
    return "keeps freed memory"


def give_back_memory() -> None:
    """Gives the system what malloc keeps, as far as that is free. All of malloc waits meanwhile.

    Two workers with `base` had 1,039 MiB after eight windows each, and 430 after this, which took
    0.1 s; the next window is no slower by more than can be measured.
    """
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _choose_instructions() -> str:
    """AVX-512 where the processor has it: CTranslate2 takes AVX2 on AMD by itself, 6 % slower."""
    if chosen := os.environ.get("CT2_FORCE_CPU_ISA"):
        return f"{chosen}, as CT2_FORCE_CPU_ISA says"
    if not cpu_flags() >= _AVX512:
        return "chosen by CTranslate2"
    os.environ["CT2_FORCE_CPU_ISA"] = "AVX512"
    return "AVX512"


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this processor, by Linux' names; empty where they cannot be told."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").split())
