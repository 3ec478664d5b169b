"""Where the recording of a request is: in the file that came, or at the address it names."""

from __future__ import annotations

from pathlib import Path

from simple_asr.errors import TwoRecordings
from simple_asr.server.intake import missing_file
from simple_asr.service.downloads import FIELD, Downloads


def choose_source(file: Path | None, audio_url: str | None, downloads: Downloads) -> Path | str:
    """The one of both that is there.

    Raises MissingFile, TwoRecordings, and for the address InvalidParameter and AddressRefused.
    """
    if audio_url is None:
        if file is None:
            raise missing_file()
        return file
    if file is not None:
        raise TwoRecordings(
            "A file came, and audio_url names another recording; a request takes one. Send either.",
            field=FIELD,
        )
    downloads.check(audio_url)
    return audio_url
