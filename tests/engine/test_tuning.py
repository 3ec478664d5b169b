"""What is done before the library loads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simple_asr.engine.tuning import cpu_flags

TUNE = "from simple_asr.engine.tuning import tune; import os; t = tune(); "


def run(program: str, **environment: str) -> str:
    """Runs Python in a process of its own, since tuning is for good."""
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


TAKE_AND_FREE_300_MB = TUNE + (
    "import ctypes; libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p\n"
    "libc.free.argtypes = [ctypes.c_void_p]\n"
    "block = libc.malloc(300 << 20); ctypes.memset(block, 1, 300 << 20); libc.free(block)\n"
)
PRINT_RESIDENT_MB = "print(int(open('/proc/self/statm').read().split()[1]) * 4096 >> 20)"


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    assert int(run(TAKE_AND_FREE_300_MB + PRINT_RESIDENT_MB)) > 300


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_kept_memory_is_given_back_when_told() -> None:
    give_back = "from simple_asr.engine.tuning import give_back_memory; give_back_memory()\n"

    assert int(run(TAKE_AND_FREE_300_MB + give_back + PRINT_RESIDENT_MB)) < 200


@pytest.mark.skipif("avx512f" not in cpu_flags(), reason="this processor has no AVX-512")
def test_avx512_is_used_where_there_is_one() -> None:
    assert run(TUNE + "print(os.environ['CT2_FORCE_CPU_ISA'])", CT2_FORCE_CPU_ISA="") == "AVX512"


def test_an_operators_choice_of_instructions_stands() -> None:
    chosen = run(TUNE + "print(os.environ['CT2_FORCE_CPU_ISA'])", CT2_FORCE_CPU_ISA="AVX2")

    assert chosen == "AVX2"
