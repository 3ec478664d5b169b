from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_no_library_prepares_to_tell_its_makers_of_its_use(tmp_path: Path) -> None:
    # onnxruntime makes itself a number for the machine and a file of what is to be sent, unless it
    # finds itself in tests or among the checks of a repository: hence no other variable.
    program = "from simple_asr.audio.speech import SpeechDetector; SpeechDetector()"

    subprocess.run(
        [sys.executable, "-c", program], env={"HOME": str(tmp_path)}, check=True, cwd=tmp_path
    )

    assert list(tmp_path.rglob("*")) == []
