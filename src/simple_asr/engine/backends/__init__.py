"""The libraries that run models. To add one, implement `base.Backend` and add a row to BACKENDS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from simple_asr.engine.backends.base import Backend

BATCH_SIZES = {"cpu": 8, "cuda": 16}
"""Windows best decoded in one call, by device. Source: docs/benchmarks.md."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model. `device` is `cpu` or `cuda`; `compute_type` may be `auto`.

    `num_threads` counts on a CPU; 0 is one per core.
    """

    device: str
    compute_type: str = "auto"
    num_threads: int = 0


def _load_ctranslate2(name: str, folder: Path, options: LoadOptions) -> Sequence[Backend]:
    # Imported when it is used: the library reads its environment as it loads.
    from simple_asr.engine.backends import ctranslate2  # noqa: PLC0415

    return ctranslate2.load_replicas(
        name,
        folder,
        device=options.device,
        compute_type=options.compute_type,
        num_threads=options.num_threads,
    )


def num_gpus() -> int:
    """GPUs a model can be loaded on."""
    from simple_asr.engine.backends import ctranslate2  # noqa: PLC0415

    return ctranslate2.num_gpus()


BACKENDS: dict[str, Callable[[str, Path, LoadOptions], Sequence[Backend]]] = {
    "ctranslate2": _load_ctranslate2,
}
"""Loaders by name: model name, folder and options in, one replica a device out."""
