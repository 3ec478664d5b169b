"""Word error rate over recordings with transcripts, through POST /transcribe.

    python -m benchmarks.accuracy FOLDER [--speedup 1 1.25] [--option audio_context=auto]

FOLDER holds `manifest.jsonl`: one object a line with `path`, `language`, `text` and, to be compared
with, `wer`. English is normalised as Whisper's authors do, other languages by the basic normaliser;
in Japanese and Chinese characters are counted.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from benchmarks.local_server import LocalServer, local_server

_BY_CHARACTER = {"ja", "zh"}


@dataclass(frozen=True)
class Score:
    """Errors in `num_units` words or characters; `known` is the manifest's rate of the same."""

    path: str
    language: str
    num_errors: int
    num_units: int
    known: float | None

    @property
    def rate(self) -> float:
        return self.num_errors / self.num_units


def main() -> None:
    arguments = _arguments()
    recordings = clips(arguments.folder)
    with local_server(DEFAULT_MODEL=arguments.model, COMPUTE_TYPE=arguments.compute_type) as server:
        for speedup in arguments.speedup:
            options = {"speedup": str(speedup), **dict(arguments.option)}
            scores = [_score(server, arguments.folder, clip, options) for clip in recordings]
            print("\n" + ", ".join(f"{name} {value}" for name, value in options.items()))
            _report(scores, verbose=arguments.verbose)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speedup", type=float, nargs="+", default=[1.0, 1.25])
    parser.add_argument(
        "--option",
        type=option,
        nargs="+",
        default=[("beam_size", "5")],
        help="parameters of the requests, as name=value",
    )
    parser.add_argument("--model", default="base")
    parser.add_argument("--compute-type", default="auto")
    parser.add_argument("--verbose", action="store_true", help="a line for every recording")
    return parser.parse_args()


def option(text: str) -> tuple[str, str]:
    """Reads `name=value`. Raises argparse.ArgumentTypeError."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name, value


def clips(folder: Path) -> list[dict[str, object]]:
    """Those of the manifest that have a transcript."""
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return [clip for clip in map(json.loads, lines) if clip.get("text")]


def _score(
    server: LocalServer, folder: Path, clip: dict[str, object], options: dict[str, str]
) -> Score:
    path, language = str(clip["path"]), str(clip["language"])
    with (folder / path).open("rb") as audio:
        answer = server.client.post(
            "/transcribe",
            params={"format": "simple", **options},
            files={"audio_file": audio},
        )
    answer.raise_for_status()
    known = clip.get("wer")
    return Score(
        path,
        language,
        *count_errors(str(clip["text"]), answer.json()["text"], language),
        float(known) if isinstance(known, int | float) else None,
    )


def count_errors(reference: str, hypothesis: str, language: str) -> tuple[int, int]:
    """Wrong, missing and added words, and the reference's words; characters in some languages."""
    measure = jiwer.process_characters if language in _BY_CHARACTER else jiwer.process_words
    counts = measure(normalised(reference, language), normalised(hypothesis, language))
    num_errors = counts.substitutions + counts.deletions + counts.insertions
    return num_errors, counts.hits + counts.substitutions + counts.deletions


def normalised(text: str, language: str) -> str:
    normaliser = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    normalised = str(normaliser(text))
    return normalised.replace(" ", "") if language in _BY_CHARACTER else normalised


def _report(scores: Iterable[Score], *, verbose: bool) -> None:
    by_language: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_language[score.language].append(score)
        if verbose:
            print(f"  {score.rate:6.3f} (manifest {score.known})  {score.path}")
    for language, group in sorted(by_language.items()):
        units = sum(score.num_units for score in group)
        errors = sum(score.num_errors for score in group)
        known = sum((score.known or 0) * score.num_units for score in group)
        print(
            f"{language:6} {len(group):3d} recordings {units:6d} units   "
            f"{100 * errors / units:6.2f} %   manifest {100 * known / units:6.2f} %"
        )


if __name__ == "__main__":
    main()
