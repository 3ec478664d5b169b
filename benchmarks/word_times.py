"""Word times under one set of options beside those under another, through POST /transcribe.

    python -m benchmarks.word_times FOLDER [--option audio_context=auto]
        [--beside audio_context=full] [--model base] [--compute-type auto]

FOLDER holds `manifest.jsonl`, as for `benchmarks.accuracy`. Words that both have written alike, in
the same order, are compared: how far their beginnings and ends lie apart. Which are right is known
only where one of the two is openai-whisper's own way.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import clips, option
from benchmarks.local_server import LocalServer, local_server

# What openai-whisper's own words are held to.
NEAR_SECONDS = 0.06


@dataclass(frozen=True)
class Word:
    """Times are in seconds."""

    text: str
    start: float
    end: float


def main() -> None:
    arguments = _arguments()
    apart: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    num_words: dict[str, int] = defaultdict(int)
    with local_server(
        DEFAULT_MODEL=arguments.model, COMPUTE_TYPE=arguments.compute_type, AUDIO_SPEEDUP=1
    ) as server:
        for clip in clips(arguments.folder):
            path, language = arguments.folder / str(clip["path"]), str(clip["language"])
            ours, others = (
                _words(server, path, dict(options))
                for options in (arguments.option, arguments.beside)
            )
            num_words[language] += len(others)
            apart[language].append(times_apart(ours, others))
    for language, found in sorted(apart.items()):
        _report(language, found, num_words[language])
    everything = [times for found in apart.values() for times in found]
    _report("all", everything, sum(num_words.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--option", type=option, nargs="+", default=[("audio_context", "auto")])
    parser.add_argument("--beside", type=option, nargs="+", default=[("audio_context", "full")])
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="auto")
    return parser.parse_args()


def _words(server: LocalServer, path: Path, options: dict[str, str]) -> list[Word]:
    with path.open("rb") as audio:
        answer = server.client.post(
            "/transcribe",
            params={"word_timestamps": "true", "temperature": "0", **options},
            files={"audio_file": audio},
        )
    return [
        Word(word["word"].strip().lower(), word["start"], word["end"])
        for segment in answer.raise_for_status().json()["segments"]
        for word in segment["words"]
    ]


def times_apart(ours: list[Word], others: list[Word]) -> NDArray[np.float64]:
    """Seconds between beginnings and between ends of equal words, shape (words, 2)."""
    matcher = SequenceMatcher(
        a=[word.text for word in ours], b=[word.text for word in others], autojunk=False
    )
    apart = [
        (abs(one.start - other.start), abs(one.end - other.end))
        for block in matcher.get_matching_blocks()
        for one, other in zip(
            ours[block.a : block.a + block.size],
            others[block.b : block.b + block.size],
            strict=True,
        )
    ]
    return np.array(apart, np.float64).reshape(-1, 2)


def _report(language: str, found: list[NDArray[np.float64]], num_words: int) -> None:
    apart = np.concatenate([np.zeros((0, 2)), *found])
    if not len(apart):
        print(f"{language:6} {num_words:5d} words, none equal")
        return
    # Times are told in hundredths, so that a difference of just as much may come out above it.
    near = (apart <= NEAR_SECONDS + 0.001).all(axis=1).mean()
    median, most = np.percentile(apart, [50, 95])
    print(
        f"{language:6} {num_words:5d} words, {len(apart):5d} equal; both times within "
        f"{NEAR_SECONDS * 1000:.0f} ms: {100 * near:5.1f} %; apart by {median:.2f} s at the "
        f"median, {most:.2f} s at p95"
    )


if __name__ == "__main__":
    main()
