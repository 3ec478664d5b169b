"""Figures of a run, each held against what is promised of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import numpy as np


def arguments() -> tuple[float, Figures]:
    """How much of it, and the figures: `COMMAND 50`, or, on a busy machine, `COMMAND 50 5`."""
    amount, *patience = map(float, sys.argv[1:])
    return amount, Figures(*patience)


class Figures:
    """Printed as they become known. `end` ends the command, with 1 where a promise is broken.

    On a machine that is busy with others, times may be `patience` times what is promised, and
    rates that part of it. With a patience of `inf` only what is counted is held.
    """

    def __init__(self, patience: float = 1) -> None:
        self._patience = patience
        self._broken: list[str] = []

    def note(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201 - what the command is for

    def at_most(self, what: str, seen: float, bound: float) -> None:
        self._hold(what, f"{seen:.4g} (at most {bound:.4g})", seen <= bound)

    def within(self, what: str, seconds: float, bound: float) -> None:
        self.at_most(f"{what}, s", seconds, bound * self._patience)

    def at_least(self, what: str, seen: float, bound: float) -> None:
        bound /= self._patience
        self._hold(what, f"{seen:.4g} (at least {bound:.4g})", seen >= bound)

    def equal(self, what: str, seen: object, expected: object) -> None:
        self._hold(what, f"{seen} (expected {expected})", seen == expected)

    def no_traceback(self, log: str) -> None:
        """The first one is shown."""
        before, mark, after = log.partition("Traceback")
        self.equal("tracebacks in the log", log.count(mark) if mark else 0, 0)
        if mark:
            self.note(before[-500:] + mark + after[:5000])

    def end(self) -> NoReturn:
        self.note(f"{len(self._broken)} promises broken" if self._broken else "All promises kept")
        sys.exit(1 if self._broken else 0)

    def _hold(self, what: str, figure: str, is_kept: bool) -> None:
        self.note(f"{'kept  ' if is_kept else 'BROKEN'}  {what}: {figure}")
        if not is_kept:
            self._broken.append(what)


def p99(values: Sequence[float]) -> float:
    """0 of no values."""
    return float(np.percentile(values, 99)) if values else 0.0


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between any two points: outliers do not bend it.

    Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    first, second = np.triu_indices(len(times), k=1)
    time, value = np.asarray(times), np.asarray(values)
    return float(np.median((value[second] - value[first]) / (time[second] - time[first])))


def welch_t(one: Sequence[float], other: Sequence[float]) -> float:
    """Welch's t: how many standard errors lie between two means."""
    error = np.sqrt(np.var(one, ddof=1) / len(one) + np.var(other, ddof=1) / len(other))
    return float((np.mean(one) - np.mean(other)) / error)
