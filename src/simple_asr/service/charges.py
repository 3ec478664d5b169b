"""Whom to charge what was used: one place for quotas, usage and figures."""

from __future__ import annotations

from simple_asr.service.keys import KeyStore
from simple_asr.service.metrics import Metrics
from simple_asr.service.quotas import Quotas
from simple_asr.service.usage import Usage, Used

# Whose usage the rest of a job is, once its key is out of the file: no key can have such a name.
REVOKED = "(revoked)"


class Charges:
    """Owned by the event loop, as the quotas are."""

    def __init__(self, keys: KeyStore, quotas: Quotas, usage: Usage, metrics: Metrics) -> None:
        self._keys = keys
        self._quotas = quotas
        self._usage = usage
        self._metrics = metrics

    def to_key(self, key_name: str, used: Used) -> None:
        """What a request took, to the key it was sent with."""
        self._quotas.charge(key_name, used.audio_seconds)
        self._usage.note(key_name, used)
        self._metrics.key_used(key_name, used)

    def to_owner(self, owner: str, used: Used) -> None:
        """What a part of a job took, to the key of the caller with this id."""
        key_name = self._keys.name_of(owner)
        if key_name is None:
            self._usage.note(REVOKED, used)
        else:
            self.to_key(key_name, used)

    def restore(self) -> None:
        """The quotas go on where an earlier server left them. Blocks; to be called first."""
        for key_name, used in self._usage.of_last_day().items():
            self._quotas.restore(key_name, used.requests, used.audio_seconds)
