"""How many of the names that a caller expects are written right, with `keywords[]` and without.

    python -m benchmarks.keywords FOLDER --language en --keywords Linnell "Birket Foster" …

FOLDER holds `manifest.jsonl`, as for `benchmarks.accuracy`. Every recording of the language is sent
to POST /v1/audio/transcriptions, each with all of the keywords. A keyword is found where its words
stand in the normalised text; one that the reference has not is made up.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy import count_errors, normalised
from benchmarks.local_server import LocalServer, local_server


@dataclass(frozen=True)
class Heard:
    """A recording's reference and what was written of it, both normalised."""

    reference: str
    text: str
    num_errors: int
    num_words: int

    def found(self, keyword: str) -> int:
        """How often it is written, of the times it is said."""
        return min(_count(self.text, keyword), _count(self.reference, keyword))

    def made_up(self, keyword: str) -> int:
        """How often it is written beyond the times it is said."""
        return max(0, _count(self.text, keyword) - _count(self.reference, keyword))


def main() -> None:
    arguments = _arguments()
    lines = (arguments.folder / "manifest.jsonl").read_text().splitlines()
    clips = [
        clip
        for clip in map(json.loads, lines)
        if clip.get("text") and clip["language"] == arguments.language
    ]
    ways = {
        "nothing": {},
        "prompt": {"prompt": ", ".join(arguments.keywords)},
        "keywords[]": {"keywords[]": arguments.keywords},
    }
    with local_server() as server:
        for way, fields in ways.items():
            heard = [_hear(server, arguments.folder, clip, fields) for clip in clips]
            print(f"\n{way}: {_figures(heard, arguments.keywords)}")
            if arguments.verbose:
                for keyword in arguments.keywords:
                    print(f"  {keyword}: {_figures(heard, [keyword])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--keywords", nargs="+", required=True)
    parser.add_argument("--verbose", action="store_true", help="a line for every keyword")
    return parser.parse_args()


def _hear(
    server: LocalServer, folder: Path, clip: dict[str, str], fields: dict[str, object]
) -> Heard:
    language = clip["language"]
    with (folder / clip["path"]).open("rb") as audio:
        answer = server.client.post(
            "/v1/audio/transcriptions",
            data={"language": language, **fields},
            files={"file": audio},
        )
    answer.raise_for_status()
    text = answer.json()["text"]
    return Heard(
        normalised(clip["text"], language),
        normalised(text, language),
        *count_errors(clip["text"], text, language),
    )


def _figures(heard: list[Heard], keywords: list[str]) -> str:
    pairs = [(one, normalised(keyword, "")) for one in heard for keyword in keywords]
    said = sum(_count(one.reference, keyword) for one, keyword in pairs)
    found = sum(one.found(keyword) for one, keyword in pairs)
    made_up = sum(one.made_up(keyword) for one, keyword in pairs)
    errors = sum(one.num_errors for one in heard)
    words = sum(one.num_words for one in heard)
    return (
        f"{found} of {said} keywords found, {made_up} made up; "
        f"word error rate {100 * errors / words:.2f} % of {words} words"
    )


def _count(text: str, keyword: str) -> int:
    return f" {text} ".replace(" ", "  ").count(f" {keyword.replace(' ', '  ')} ")


if __name__ == "__main__":
    main()
