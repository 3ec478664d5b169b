"""faster-whisper under the same closed loop, as a process of its own; prints its figures as JSON.

    PYTHON -m benchmarks.peer_faster_whisper MODEL WORKERS THREADS CLIENTS LIST

LIST is a file of `seconds path` lines. PYTHON needs faster-whisper alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.load import Recording, closed_loop


def main() -> None:
    from faster_whisper import WhisperModel  # noqa: PLC0415  (not installed where this is checked)

    model_folder, workers, threads, clients, listing = sys.argv[1:]
    lines = (line.split(maxsplit=1) for line in Path(listing).read_text().splitlines())
    recordings = [Recording(Path(path), float(seconds)) for seconds, path in lines]
    model = WhisperModel(
        model_folder,
        device="cpu",
        compute_type="int8",
        num_workers=int(workers),
        cpu_threads=int(threads),
    )

    def ask(path: Path) -> None:
        segments, _ = model.transcribe(str(path), beam_size=1)
        list(segments)

    ask(recordings[0].path)  # warm
    print(closed_loop(recordings, int(clients), ask).to_json())


if __name__ == "__main__":
    main()
