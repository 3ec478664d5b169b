"""HTTPS: the certificate and its key, checked at the start as a client would, and read again."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simple_asr.errors import ConfigurationError
from simple_asr.settings import Settings

logger = logging.getLogger(__name__)

# OpenSSL's numbers for what a client finds, x509_vfy.h.
_UNTIMELY = {9: "is not valid yet", 10: "has expired"}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Without `key` the key stands beside the certificate."""

    certificate: Path
    key: Path | None = None
    password_file: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> TlsFiles | None:
        """None where plain HTTP is spoken. Raises ConfigurationError."""
        if settings.tls_certificate is None:
            if settings.tls_key is not None:
                raise ConfigurationError(
                    f"TLS_KEY={settings.tls_key} is set, and TLS_CERTIFICATE is not. Set both for "
                    "HTTPS, or neither."
                )
            return None
        if settings.unix_socket is not None:
            raise ConfigurationError(
                f"TLS_CERTIFICATE={settings.tls_certificate} and UNIX_SOCKET="
                f"{settings.unix_socket} are both set. HTTPS protects nothing on a socket file, "
                "which never leaves this machine: leave one of them empty."
            )
        return cls(settings.tls_certificate, settings.tls_key, settings.tls_key_password_file)


def open_tls(files: TlsFiles) -> ssl.SSLContext:
    """What uvicorn serves with, as `load_tls`. Raises ConfigurationError.

    A certificate whose time is over, or has not come, is a warning: its clients decide.
    """
    context = load_tls(files)
    fault = fault_of_time(context, files.certificate)
    if fault:
        logger.warning(
            "The certificate TLS_CERTIFICATE=%s %s: clients will refuse it. Renew it, then send "
            "SIGHUP.",
            files.certificate,
            fault,
        )
    return context


def load_tls(files: TlsFiles) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or newer. Raises ConfigurationError."""
    for name, path in (
        ("TLS_CERTIFICATE", files.certificate),
        ("TLS_KEY", files.key),
        ("TLS_KEY_PASSWORD_FILE", files.password_file),
    ):
        _check_readable(name, path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    take_certificate(context, files)
    return context


def take_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """For the connections from now on. Raises ConfigurationError."""

    def password() -> bytes:
        if files.password_file is None:
            raise ConfigurationError(
                f"The key {files.key or files.certificate} is encrypted. Name the file of its "
                "password in TLS_KEY_PASSWORD_FILE."
            )
        return files.password_file.read_bytes().rstrip(b"\r\n")

    try:
        context.load_cert_chain(files.certificate, files.key, password)
    except (OSError, ValueError) as error:
        raise ConfigurationError(_explanation(error, files)) from None


def _check_readable(name: str, path: Path | None) -> None:
    try:
        if path is not None:
            path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"The file {name}={path} cannot be read ({error.strerror}). Correct {name}, or let "
            "the server's user read the file."
        ) from None


def _explanation(error: Exception, files: TlsFiles) -> str:
    key = files.key or files.certificate
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return (
            f"The key {key} does not belong to the certificate {files.certificate}, whose own must "
            "stand first in its file. Set TLS_CERTIFICATE and TLS_KEY to a pair."
        )
    if files.password_file is not None and reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ", None):
        return f"The password in TLS_KEY_PASSWORD_FILE={files.password_file} does not open {key}."
    return (
        f"{files.certificate} and {key} cannot be used for HTTPS ({reason or error}). They should "
        "be PEM files: the certificate with those between it and its root, and its key."
    )


def fault_of_time(context: ssl.SSLContext, certificate: Path) -> str:
    """What a client finds wrong with the certificate's time; empty for nothing.

    Asks one, in memory, that trusts this very certificate: Python alone cannot read its dates.
    Raises ConfigurationError where the two cannot agree on a cipher.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        trusting.load_verify_locations(certificate)
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as refusal:
        return _UNTIMELY.get(refusal.verify_code, "")
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigurationError(
            f"No client can speak HTTPS with the certificate {certificate} ({reason}). Use an RSA, "
            "P-256 or Ed25519 key."
        ) from None
    return ""
