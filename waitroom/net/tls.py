"""The certificate and key of the public listener: reads and checks them, and creates the TLS context.

The supervisor reads both once and passes the contents to every worker. So all workers have the same pair, and a
replacement worker gets the pair last in use, whatever the files contain by then.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from waitroom.errors import WaitroomError

# Not needed for a certificate, but likely to be named by mistake.
MAX_FILE_BYTES = 1 << 20

_PARTS = {"tls_certificate": "the certificate", "tls_key": "the key"}


class CertificateError(WaitroomError):
    """The certificate or key can't be used.

    Args:
        key: The setting at fault.
        what: The problem, without any of the files' content.
        hint: How to fix it.
    """

    def __init__(self, key: str, what: str, hint: str) -> None:
        self.key = key
        self.what = what
        self.hint = hint
        super().__init__(f"{what} {hint}")


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A matching certificate chain and key, both in PEM."""

    chain: str
    key: str = field(repr=False)

    def to_json(self) -> bytes:
        """One line for `from_json`, key included: for a pipe to a child process, never for a log."""
        return json.dumps([self.chain, self.key]).encode()

    @classmethod
    def from_json(cls, data: bytes) -> CertificatePair:
        """Reads what `to_json` wrote."""
        chain, key = json.loads(data)
        return cls(chain, key)

    def context(self) -> ssl.SSLContext:
        """The server's TLS context for this pair. Raises `ssl.SSLError` if the two don't match."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # OpenSSL only takes files; these have no name that another process could open.
        with _unnamed_file(self.chain) as chain, _unnamed_file(self.key) as key:
            context.load_cert_chain(chain, key, password=_no_passphrase)
        return context

    def browser_error(self) -> str | None:
        """Why no browser would accept this certificate now, such as ``certificate has expired``; None if it would.

        Checked by a handshake in memory with a client that trusts this one certificate: its issuer and the names it is
        valid for are not checked.
        """
        leaf = self.chain[self.chain.index(_BEGIN) : self.chain.index(_END) + len(_END)]
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False
        client_context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        client_context.load_verify_locations(cadata=leaf)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self.context().wrap_bio(to_server, to_client, server_side=True)
        client = client_context.wrap_bio(to_client, to_server)
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return str(error.verify_message)
        return None


def read_pair(certificate: Path, key: Path) -> CertificatePair:
    """Reads and checks the pair. Raises `CertificateError`."""
    chain, secret = _read("tls_certificate", certificate), _read("tls_key", key)
    if _BEGIN not in chain or _END not in chain:
        hint = "Use the server's certificate and its intermediates, each between its BEGIN and END lines."
        raise CertificateError("tls_certificate", f'"{certificate}" contains no certificate in PEM.', hint)
    if "PRIVATE KEY-----" not in secret:
        hint = "Use the key that the certificate was requested with, between its BEGIN and END lines."
        raise CertificateError("tls_key", f'"{key}" contains no private key in PEM.', hint)
    pair = CertificatePair(chain, secret)
    try:
        pair.context()
    except _PassphraseNeededError:
        hint = "Remove the passphrase with: openssl pkey -in KEY -out NEW_KEY"
        raise CertificateError("tls_key", f'"{key}" is encrypted with a passphrase.', hint) from None
    except ssl.SSLError as error:
        raise _refused(error, certificate, key) from error
    return pair


_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class _PassphraseNeededError(Exception):
    """OpenSSL asks for the passphrase of a key."""


def _no_passphrase() -> NoReturn:
    raise _PassphraseNeededError


def _refused(error: ssl.SSLError, certificate: Path, key: Path) -> CertificateError:
    if error.reason == "KEY_VALUES_MISMATCH":
        what = f'"{key}" isn\'t the key of the certificate in "{certificate}".'
        return CertificateError(
            "tls_key", what, "Use a matching pair, with the server's certificate first in its file."
        )
    reason = (error.reason or "unknown").replace("_", " ").lower()
    what = f'"{certificate}" and the key in "{key}" can\'t be used: {reason}.'
    return CertificateError("tls_certificate", what, "Inspect them with: openssl x509 -text, openssl pkey -check")


def _read(setting: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = "Check the path, and whether the gateway's user may read it."
        raise CertificateError(setting, f'"{file}" can\'t be read: {reason}.', hint) from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > MAX_FILE_BYTES:
        what = f'"{file}" is not a PEM file.'
        raise CertificateError(setting, what, f"Use {_PARTS[setting]} in text form, with BEGIN and END lines.")
    return text


@contextmanager
def _unnamed_file(text: str) -> Iterator[str]:
    """The path of a file that holds this text, in memory if the system supports it."""
    if sys.platform == "linux":
        opened: IO[bytes] = os.fdopen(os.memfd_create("waitroom"), "w+b")
    else:
        opened = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    with opened as file:
        file.write(text.encode())
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
