"""HTTPS: what files are taken, what is said of the others, and a real handshake."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from simple_asr.errors import ConfigurationError
from simple_asr.server.tls import TlsFiles, open_tls, take_certificate
from simple_asr.settings import Settings

PASSWORD = b"not so secret"


@dataclass
class Pair:
    """A certificate's and its key's files, and who vouches for them."""

    files: TlsFiles
    authority: trustme.CA

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    def make(name: str = "server", *, expires: datetime | None = None) -> Pair:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", not_after=expires)
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        for i, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(certificate, append=i > 0)
        issued.private_key_pem.write_to_path(key)
        return Pair(TlsFiles(certificate, key), authority)

    return make


def encrypt(key: Path) -> None:
    """With PASSWORD."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(PASSWORD),
        )
    )


def reason(files: TlsFiles) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        open_tls(files)
    return refusal.value.detail


def test_a_certificate_and_its_key_are_taken_without_a_word(
    make_pair: MakePair, caplog: pytest.LogCaptureFixture
) -> None:
    context = open_tls(make_pair().files)

    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert caplog.messages == []


def test_the_key_may_stand_in_the_certificates_file(make_pair: MakePair) -> None:
    files = make_pair().files
    assert files.key is not None
    with files.certificate.open("ab") as whole:
        whole.write(files.key.read_bytes())

    open_tls(TlsFiles(files.certificate))


@pytest.mark.parametrize("name", ["certificate", "key", "password_file"])
def test_a_file_that_is_missing_is_named_with_its_setting(make_pair: MakePair, name: str) -> None:
    pair = make_pair().files
    paths = {"certificate": pair.certificate, "key": pair.key, name: Path("none.pem")}

    said = reason(TlsFiles(**paths))  # type: ignore[arg-type]  # None is no certificate's path here

    assert f"TLS_{name.upper().replace('PASSWORD', 'KEY_PASSWORD')}=none.pem" in said
    assert "No such file" in said


def test_a_key_of_another_certificate_is_refused(make_pair: MakePair) -> None:
    pair, other = make_pair().files, make_pair("other").files

    said = reason(TlsFiles(pair.certificate, other.key))

    assert "other.key does not belong to the certificate" in said


def test_what_is_no_certificate_is_refused(make_pair: MakePair, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate\n")

    assert "They should be PEM files" in reason(TlsFiles(text, make_pair().files.key))


def test_a_key_of_a_kind_that_no_client_knows_is_refused(tmp_path: Path) -> None:
    unusual = tmp_path / "unusual.pem"
    unusual.write_bytes(self_signed(ec.generate_private_key(ec.SECP256K1())))

    said = reason(TlsFiles(unusual))

    assert f"No client can speak HTTPS with the certificate {unusual}" in said
    assert "P-256" in said


def self_signed(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate of this key, for a day, and the key, as PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    ).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_an_encrypted_key_needs_its_password(make_pair: MakePair, tmp_path: Path) -> None:
    files = make_pair().files
    assert files.key is not None
    encrypt(files.key)
    password, wrong = tmp_path / "password", tmp_path / "wrong"
    password.write_bytes(PASSWORD + b"\n")
    wrong.write_bytes(b"wrong")

    open_tls(TlsFiles(files.certificate, files.key, password))
    without = reason(files)
    with_another = reason(TlsFiles(files.certificate, files.key, wrong))

    assert "is encrypted" in without
    assert "TLS_KEY_PASSWORD_FILE" in without
    assert f"TLS_KEY_PASSWORD_FILE={wrong} does not open" in with_another


def test_a_certificate_that_has_expired_is_served_with_a_warning(
    make_pair: MakePair, caplog: pytest.LogCaptureFixture
) -> None:
    open_tls(make_pair(expires=datetime(2020, 1, 1, tzinfo=timezone.utc)).files)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "has expired" in record.getMessage()


def test_a_key_without_a_certificate_is_half_a_setting() -> None:
    settings = Settings.model_validate({"tls_key": "server.key"})

    with pytest.raises(ConfigurationError, match="TLS_CERTIFICATE is not"):
        TlsFiles.from_settings(settings)


def test_a_socket_file_is_not_for_https() -> None:
    settings = Settings.model_validate({"tls_certificate": "a.pem", "unix_socket": "asr.sock"})

    with pytest.raises(ConfigurationError, match="leave one of them empty"):
        TlsFiles.from_settings(settings)


def test_without_the_settings_plain_http_is_spoken() -> None:
    assert TlsFiles.from_settings(Settings.model_validate({"tls_certificate": ""})) is None


def test_another_certificate_counts_for_the_connections_from_then_on(make_pair: MakePair) -> None:
    old, new = make_pair(), make_pair("new")
    context = open_tls(old.files)

    take_certificate(context, new.files)

    assert shown_to(new.trusting(), context)
    assert not shown_to(old.trusting(), context)


def shown_to(trusting: ssl.SSLContext, context: ssl.SSLContext) -> bool:
    """Whether a client that trusts so takes what the server shows."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError:
        return False
    return True
