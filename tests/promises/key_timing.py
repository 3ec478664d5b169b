"""Whether the time that it takes to refuse a key tells how near a guess was (Welch's t).

After Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?", 2017: samples of all
kinds in random order, the slowest left out, and |t| below 4.5.

python -m tests.promises.key_timing 20000
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from simple_asr.errors import WrongKey
from simple_asr.service.keys import KeyStore, generate_key
from tests.promises.figures import Figures, arguments, welch_t

# Where a key's digest falls in the table of keys costs it a few nanoseconds more or less, and is
# different after every start: no sample uses the same guess again.
KNOWN, REVOKED = ([generate_key() for _ in range(500)] for _ in range(2))
GUESSES: dict[str, Callable[[], str]] = {
    "unknown": generate_key,
    "wrong at the beginning": lambda: generate_key()[:8] + random.choice(KNOWN)[8:],  # noqa: S311
    "wrong at the end": lambda: random.choice(KNOWN)[:-8] + generate_key()[-8:],  # noqa: S311
    "revoked": lambda: random.choice(REVOKED),  # noqa: S311 - no secrets
}
MOST = 4.5
# Of each kind, these: what is slower has been interrupted.
FASTEST = 0.9


def main(num_samples: int, figures: Figures) -> None:
    for guess, t in leaks(refusing_store(), num_samples).items():
        figures.at_most(f"|t| of '{guess}' against 'unknown', {num_samples} each", abs(t), MOST)
    figures.end()


def refusing_store() -> Callable[[bytes], object]:
    """`identify` of a store that knows KNOWN, and knew REVOKED."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys.txt"
        keys = KeyStore(file)
        for valid in ([*KNOWN, *REVOKED], KNOWN):
            file.write_text("\n".join(valid))
            file.chmod(0o600)
            keys.reload()
    return keys.identify


def leaks(identify: Callable[[bytes], object], num_samples: int) -> dict[str, float]:
    """t of each other guess against an unknown one."""
    times = sampled(identify, num_samples)
    unknown = fastest(times["unknown"])
    return {
        guess: welch_t(fastest(taken), unknown)
        for guess, taken in times.items()
        if guess != "unknown"
    }


def sampled(identify: Callable[[bytes], object], num_samples: int) -> Mapping[str, list[int]]:
    """Nanoseconds of each refusal."""
    order = list(GUESSES) * num_samples
    random.shuffle(order)
    # Made before: what a processor's caches hold after making one would be measured too.
    guesses = [(guess, GUESSES[guess]().encode()) for guess in order]
    times: dict[str, list[int]] = {guess: [] for guess in GUESSES}
    for guess, key in guesses:
        began = time.perf_counter_ns()
        with suppress(WrongKey):
            identify(key)
        times[guess].append(time.perf_counter_ns() - began)
    return times


def fastest(times: list[int]) -> list[float]:
    return list(np.sort(times)[: int(FASTEST * len(times))].astype(float))


if __name__ == "__main__":
    amount, held = arguments()
    main(int(amount), held)
