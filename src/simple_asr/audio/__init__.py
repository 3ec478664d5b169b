"""From bytes to speech. No language, no HTTP."""

SAMPLE_RATE = 16_000
"""Samples a second of all decoded audio: what Whisper and Silero were trained on."""
