"""What AMD's GPU runtime must find in the environment before it is loaded, with the model."""

from __future__ import annotations

import os

from simple_asr.settings import Settings


def tell_rocm(settings: Settings) -> None:
    """Hands HSA_OVERRIDE_GFX_VERSION on: from `.env` alone it would not reach the runtime.

    Empty, it must not be there at all: the runtime takes an empty version for a wrong one.
    """
    os.environ.pop("HSA_OVERRIDE_GFX_VERSION", None)
    if settings.hsa_override_gfx_version:
        os.environ["HSA_OVERRIDE_GFX_VERSION"] = settings.hsa_override_gfx_version
