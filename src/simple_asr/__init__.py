"""Simple ASR: a self-hosted speech-to-text server around Whisper."""

import os

__version__ = "0.1.0"

# What libraries would tell their makers stays on this machine. They read it at their import:
# onnxruntime, which asks for it since 1.29, and the client of the hub.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1")
