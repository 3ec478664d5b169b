"""`python -m simple_asr` is `simple-asr`."""

from __future__ import annotations

from simple_asr.cli.main import main

if __name__ == "__main__":
    main()
