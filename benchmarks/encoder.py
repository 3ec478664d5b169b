"""What engine/tuning.py gains: milliseconds to encode one 30 s window, tuned and as shipped.

    python -m benchmarks.encoder [--model base] [--rounds 5]

Each configuration runs in a process of its own, in turn; medians of all rounds are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict

from benchmarks.local_server import model_folder

# Name, whether the allocator is tuned, instruction set.
CONFIGURATIONS = (
    ("as shipped", False, "AVX2"),
    ("AVX-512", False, "AVX512"),
    ("allocator", True, "AVX2"),
    ("both", True, "AVX512"),
)

_PROGRAM = """
import sys, time
from pathlib import Path
from simple_asr.engine.tuning import tune
if sys.argv[2] == "True":
    tune()
import numpy as np
from simple_asr.engine.backends.ctranslate2 import load_replicas
options = {"device": "cpu", "compute_type": "int8", "num_threads": 0}
backend = load_replicas("model", Path(sys.argv[1]), **options)[0]
window = np.random.default_rng(0).normal(0, 0.5, (backend.info.n_mels, 3000)).astype(np.float32)
backend.encode([window])
began = time.perf_counter()
for _ in range(5):
    backend.encode([window])
print((time.perf_counter() - began) / 5 * 1000)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="base")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = model_folder(arguments.model)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, is_tuned, instructions in CONFIGURATIONS:
            output = subprocess.check_output(
                [sys.executable, "-c", _PROGRAM, str(folder), str(is_tuned)],
                env={**os.environ, "CT2_FORCE_CPU_ISA": instructions},
                text=True,
            )
            times[name].append(float(output))
    for name, values in times.items():
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"{name:12} {statistics.median(values):6.0f} ms  {spread}")


if __name__ == "__main__":
    main()
