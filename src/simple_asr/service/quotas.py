"""What each key may take: requests at once, requests and audio a minute and a day. Pure arithmetic.

The limits stand in an optional file beside the keys, a section for each name, `*` for the others:

    [*]
    concurrent = 4
    requests_per_minute = 60
    audio_seconds_per_day = 36000

    [alice]
    concurrent = 16
"""

from __future__ import annotations

import configparser
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from simple_asr.errors import ConfigurationError, QuotaExceeded

MINUTE = 60.0
DAY = 86_400.0
EVERYBODY = "*"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Infinity where there is no limit."""

    concurrent: float = math.inf
    requests_per_minute: float = math.inf
    requests_per_day: float = math.inf
    audio_seconds_per_minute: float = math.inf
    audio_seconds_per_day: float = math.inf


def read_limits(file: Path) -> dict[str, KeyLimits]:
    """Limits by name of the key; none without a file. Raises ConfigurationError."""
    parser = configparser.ConfigParser(default_section=EVERYBODY, interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        reason = str(error).replace("<string>", file.name).replace("\n", " ")
        raise ConfigurationError(f"The limits of keys cannot be read: {reason}.") from None
    return {name: _limits(name, section) for name, section in parser.items()}


def _limits(name: str, section: Mapping[str, str]) -> KeyLimits:
    known = {field.name for field in fields(KeyLimits)}
    values = {}
    for option, text in section.items():
        if option not in known:
            raise ConfigurationError(
                f"LIMITS_FILE, section [{name}]: there is no limit {option!r}; there are "
                f"{', '.join(sorted(known))}."
            )
        try:
            values[option] = float(text)
        except ValueError:
            values[option] = math.nan
        if not values[option] >= 0:
            raise ConfigurationError(
                f"LIMITS_FILE, section [{name}]: {option} is {text!r}, which is no number from 0."
            )
    return KeyLimits(**values)


class _Allowance:
    """So much a period, which comes back evenly; what is spent beyond it must come back first."""

    def __init__(self, most: float, period: float, now: float) -> None:
        self._most, self.period = most, period
        self._left, self._at = most, now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much is left; 0 when it is."""
        if math.isinf(self._most):
            return 0.0
        self._give_back(now)
        if self._left >= min(amount, self._most) and self._most > 0:
            return 0.0
        missing = min(amount, self._most) - self._left
        return missing * self.period / self._most if self._most > 0 else self.period

    def spend(self, amount: float, now: float) -> None:
        self._give_back(now)
        self._left -= amount

    def spent(self, now: float) -> float:
        """What has not come back yet."""
        self._give_back(now)
        return 0.0 if math.isinf(self._most) else self._most - self._left

    def _give_back(self, now: float) -> None:
        if not math.isinf(self._most):
            back = (now - self._at) * self._most / self.period
            self._left = min(self._most, self._left + back)
        self._at = now


class _Account:
    def __init__(self, limits: KeyLimits, now: float) -> None:
        self.num_running = 0
        self._open(limits, now)

    def renew(self, limits: KeyLimits, now: float) -> None:
        """Other limits from now on; what runs and what is spent stays so."""
        spent = [allowance.spent(now) for _, allowance in (*self.requests, *self.audio)]
        self._open(limits, now)
        for amount, (_, allowance) in zip(spent, (*self.requests, *self.audio), strict=True):
            allowance.spend(amount, now)

    def _open(self, limits: KeyLimits, now: float) -> None:
        self.limits = limits
        self.requests = [
            ("requests_per_minute", _Allowance(limits.requests_per_minute, MINUTE, now)),
            ("requests_per_day", _Allowance(limits.requests_per_day, DAY, now)),
        ]
        self.audio = [
            ("audio_seconds_per_minute", _Allowance(limits.audio_seconds_per_minute, MINUTE, now)),
            ("audio_seconds_per_day", _Allowance(limits.audio_seconds_per_day, DAY, now)),
        ]


class Quotas:
    """Who may begin a transcription now. Owned by the event loop.

    Audio is charged when its length is known, which is after the request began: a long file may
    go beyond what was left, and the next ones wait until that has come back.
    """

    def __init__(
        self, limits: Mapping[str, KeyLimits], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @property
    def are_limited(self) -> bool:
        """Whether there is any limit."""
        return bool(self._limits)

    def renew(self, limits: Mapping[str, KeyLimits]) -> None:
        """Other limits from now on, of everybody; what runs and what is spent stays so."""
        self._limits = limits
        for name, account in self._accounts.items():
            account.renew(self._limits_of(name), self._clock())

    @contextmanager
    def admission(self, key_name: str) -> Iterator[None]:
        """A place for one request of this key. Raises QuotaExceeded."""
        account = self._account(key_name)
        self._check(account)
        for _, allowance in account.requests:
            allowance.spend(1, self._clock())
        account.num_running += 1
        try:
            yield
        finally:
            account.num_running -= 1

    def charge(self, key_name: str, audio_seconds: float) -> None:
        """What a request of this key has turned out to hold."""
        for _, allowance in self._account(key_name).audio:
            allowance.spend(audio_seconds, self._clock())

    def count_elsewhere(
        self, key_name: str, requests: float, audio_seconds: float, seconds: float
    ) -> None:
        """What the key used within so many seconds at other servers, or before this one began."""
        account = self._account(key_name)
        for allowances, amount in ((account.requests, requests), (account.audio, audio_seconds)):
            for _, allowance in allowances:
                share = min(1.0, allowance.period / seconds)
                allowance.spend(amount * share, self._clock())

    def _check(self, account: _Account) -> None:
        if account.num_running >= account.limits.concurrent:
            raise QuotaExceeded(
                f"{account.num_running} requests with this key are being worked on, and it may "
                f"have {account.limits.concurrent:g} at once. Send the request when one has ended.",
                retry_after=1,
            )
        now = self._clock()
        waits = [
            (allowance.wait(amount, now), name)
            # Any audio left will do: how much the request holds nobody knows yet.
            for allowances, amount in ((account.requests, 1.0), (account.audio, 1e-6))
            for name, allowance in allowances
        ]
        seconds, name = max(waits)
        if seconds > 0:
            raise QuotaExceeded(
                f"This key has used up its {name} of {getattr(account.limits, name):g}. Send the "
                f"request again in {math.ceil(seconds)} s, or ask the operator for more.",
                retry_after=seconds,
            )

    def _account(self, key_name: str) -> _Account:
        if key_name not in self._accounts:
            self._accounts[key_name] = _Account(self._limits_of(key_name), self._clock())
        return self._accounts[key_name]

    def _limits_of(self, key_name: str) -> KeyLimits:
        return self._limits.get(key_name) or self._limits.get(EVERYBODY) or KeyLimits()
