"""Damaged files lose no more than must be, or say so: `python -m tests.promises.silent_loss 500`.

So many mutants are decoded by us and by the ffmpeg program, which has to be installed and goes on
after errors. Lost without a word is what it finds and we do not, where the answer is no error and
has no warning.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal

from simple_asr.audio.decode import DecodeLimits, DecoderPool
from simple_asr.errors import MediaError
from tests.mutants import KINDS, mutant, valid_file
from tests.promises.figures import Figures, arguments

MOST_LOST = 0.02
"""Share of what can be decoded."""
A_FRAME = 0.15
"""Seconds; codecs differ in what they make of the first and the last one."""
MOST_SECONDS = 60
"""A mutant may claim years of silence, which both are told to leave."""
BYTES_PER_SECOND = 2 * 16_000

Outcome = Literal[
    "as long",
    "longer",
    "shorter, with a warning",
    "refused, and ffmpeg has nothing",
    "refused, and ffmpeg has some",
    "LOST",
]


def main(num_mutants: int, figures: Figures) -> None:
    seed = os.environ.get("ASR_TEST_SEED", "1")
    files = [valid_file(kind, seconds=3) for kind in KINDS]
    outcomes: Counter[Outcome] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(DecoderPool(2, DecodeLimits(), Path(folder))) as pool,
    ):
        media = Path(folder, "mutant")
        for number in range(num_mutants):
            name = f"{seed}:{number}"
            media.write_bytes(mutant(files, name) or b"\0")
            outcome = compare(pool, media)
            outcomes[outcome] += 1
            if outcome in ("LOST", "refused, and ffmpeg has some"):
                figures.note(f"mutant {name}: {outcome}, {seconds_by_ffmpeg(media):.2f} s")
    for outcome, number in outcomes.most_common():
        figures.note(f"{number:6} {outcome}")
    figures.equal("mutants that lost audio without a word", outcomes["LOST"], 0)
    figures.at_least("mutants with audio to be had", outcomes["as long"], num_mutants / 4)
    figures.end()


def compare(pool: DecoderPool, media: Path) -> Outcome:
    there = seconds_by_ffmpeg(media)
    try:
        with pool.decode(media) as recording:
            found, warnings = recording.duration, recording.warnings
    except MediaError:
        has_some = there > A_FRAME
        return "refused, and ffmpeg has some" if has_some else "refused, and ffmpeg has nothing"
    if found > there + A_FRAME:
        return "longer"
    if found >= min(there, MOST_SECONDS) * (1 - MOST_LOST) - A_FRAME:
        return "as long"
    return "shorter, with a warning" if warnings else "LOST"


def seconds_by_ffmpeg(media: Path) -> float:
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-err_detect", "ignore_err", "-i", str(media)]
    command += ["-map", "0:a:0", "-ac", "1", "-ar", "16000", "-t", str(MOST_SECONDS)]
    command += ["-f", "s16le", "-"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=False)
        return len(done.stdout) / BYTES_PER_SECOND
    return 0.0


if __name__ == "__main__":
    amount, held = arguments()
    main(int(amount), held)
