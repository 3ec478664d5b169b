"""Every error a caller may see, in one hierarchy. What status each has is the server's business.

An error's text says what happened, the value, the limit and what to do now. It never repeats audio,
a transcript, a key or a path of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class AsrError(Exception):
    """Base of all. `code` is stable and meant for programs; `detail` is meant for people."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str, *, field: str | None = None, retry_after: float | None = None
    ) -> None:
        """`field` names the parameter at fault; `retry_after` is in seconds."""
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_after = retry_after


# The request -----------------------------------------------------------------------------------


class RequestError(AsrError):
    """The caller asked for something that cannot be; sending it again unchanged will not help."""

    code = "invalid_request"
    title = "Invalid request"


class UnknownParameter(RequestError):
    code = "unknown_parameter"
    title = "Unknown parameter"


class InvalidParameter(RequestError):
    code = "invalid_parameter"
    title = "Invalid parameter"


class ContradictoryParameters(RequestError):
    code = "contradictory_parameters"
    title = "Contradictory parameters"


class SeveralErrors(RequestError):
    """More than one thing is wrong with the request; `errors` holds each, in the order found."""

    def __init__(self, errors: Sequence[RequestError]) -> None:
        super().__init__("\n".join(error.detail for error in errors))
        self.errors = tuple(errors)


class ModelNotFound(RequestError):
    code = "model_not_found"
    title = "No such model"


class ModelInUse(RequestError):
    code = "model_in_use"
    title = "The model is in use"


class MissingFile(RequestError):
    code = "missing_file"
    title = "No audio file"


class TwoRecordings(RequestError):
    code = "two_recordings"
    title = "A file and an address"


class MalformedBody(RequestError):
    code = "malformed_body"
    title = "Malformed request body"


class InvalidTranscript(RequestError):
    code = "invalid_transcript"
    title = "Invalid transcript"


class UnsupportedContentType(RequestError):
    code = "unsupported_content_type"
    title = "Unsupported content type"


class PayloadTooLarge(RequestError):
    code = "payload_too_large"
    title = "Request too large"


class RequestTimeout(RequestError):
    code = "request_timeout"
    title = "Request timed out"


class JobNotFound(RequestError):
    code = "job_not_found"
    title = "No such job"


class JobNotDone(RequestError):
    code = "job_not_done"
    title = "The job has no result"


class IdempotencyMismatch(RequestError):
    code = "idempotency_mismatch"
    title = "Idempotency key used twice"


class InvalidArchive(RequestError):
    code = "invalid_archive"
    title = "Invalid archive"


class AddressRefused(RequestError):
    """A URL that this server does not connect to for callers, whatever is there."""

    code = "address_refused"
    title = "Address not allowed"


# The media -------------------------------------------------------------------------------------


class MediaError(AsrError):
    """The file arrived, and no speech can be had from it."""

    code = "invalid_media"
    title = "Invalid media"


class DownloadFailed(AsrError):
    """What the URL names could not be had from its server; it may be there later."""

    code = "download_failed"
    title = "Download failed"


class EmptyMedia(MediaError):
    code = "empty_file"
    title = "Empty file"


class UnreadableMedia(MediaError):
    code = "unreadable_media"
    title = "Unreadable media"


class NoAudioTrack(MediaError):
    code = "no_audio_track"
    title = "No audio track"


class TooManyChannels(MediaError):
    code = "too_many_channels"
    title = "Too many channels"


class MediaLimitExceeded(MediaError):
    code = "media_limit_exceeded"
    title = "Media over the limit"


# The caller ------------------------------------------------------------------------------------


class MissingKey(AsrError):
    code = "missing_api_key"
    title = "API key missing"


class WrongKey(AsrError):
    code = "invalid_api_key"
    title = "API key not accepted"


class AdministratorsOnly(AsrError):
    code = "administrators_only"
    title = "For administrators only"


class QuotaExceeded(AsrError):
    """The key's own limit, whatever the server could do."""

    code = "quota_exceeded"
    title = "Quota of the key used up"


# The server ------------------------------------------------------------------------------------


class Unavailable(AsrError):
    """The server cannot answer now; the same request may succeed later."""

    code = "unavailable"
    title = "Temporarily unavailable"


class Overloaded(Unavailable):
    code = "overloaded"
    title = "Too many requests waiting"


class ModelNotReady(Unavailable):
    code = "model_not_ready"
    title = "The model is not ready"


class ModelFailed(Unavailable):
    """Loading it was tried and failed, and may fail for good."""

    code = "model_failed"
    title = "The model could not be loaded"


class EngineLost(Unavailable):
    """The model answers no more, and what runs it is started anew."""

    code = "engine_lost"
    title = "Speech recognition is being restarted"


class DecoderUnavailable(Unavailable):
    code = "decoder_unavailable"
    title = "No media decoder available"


class ShuttingDown(Unavailable):
    code = "shutting_down"
    title = "The server is shutting down"


class DeadlineExceeded(AsrError):
    """The request took longer than the operator allows; it was given up."""

    code = "deadline_exceeded"
    title = "The request took too long"


class StorageFull(AsrError):
    code = "storage_full"
    title = "Storage full"


class EngineFailed(AsrError):
    """The model call itself failed: the server's fault, or its hardware's."""

    code = "engine_failed"
    title = "Speech recognition failed"


class Cancelled(AsrError):
    """The caller left; nobody reads this error."""

    code = "cancelled"
    title = "Cancelled"


# The start -------------------------------------------------------------------------------------


class ConfigurationError(AsrError):
    """The server or command cannot start as it is set up."""

    code = "configuration_error"
    title = "Configuration error"


class ModelUnavailable(ConfigurationError):
    code = "model_unavailable"
    title = "Model unavailable"


class InvalidKeyFile(ConfigurationError):
    code = "invalid_key_file"
    title = "Invalid key file"
