"""Simple ASR: a self-hosted speech-to-text server around Whisper."""

__version__ = "0.1.0"
