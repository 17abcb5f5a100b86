"""Certificate and key: errors name the cause, and valid pairs serve."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from support.certificates import NAME, make_pair
from waitroom.net.tls import MAX_FILE_BYTES, CertificateError, CertificatePair, read_pair

FILES = Path(__file__).parents[1] / "testdata" / "settings"
GOOD, BAD = FILES / "good/files", FILES / "bad/files"


def pair() -> CertificatePair:
    return read_pair(GOOD / "shop.pem", GOOD / "shop.key")


def handshake(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end of a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=NAME)
    for side in (client, server) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=GOOD / "shop.pem")


def test_alpn_offers_only_http_1_1():
    client = trusting()
    client.set_alpn_protocols(["h2", "http/1.1"])
    done = handshake(pair().context(), client)
    assert done.selected_alpn_protocol() == "http/1.1"
    assert done.version() == "TLSv1.3"


def test_minimum_tls_version():
    client = trusting()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(pair().context(), client).version() == "TLSv1.2"
    assert pair().context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_pair_round_trip_keeps_the_key_out_of_logs():
    assert CertificatePair.from_json(pair().to_json()) == pair()
    assert b"\n" not in pair().to_json()
    assert "PRIVATE" not in repr(pair())


def test_no_file_is_left_open():
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        pair().context()
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("certificate", "key", "setting", "words"),
    [
        (GOOD / "shop.pem", BAD / "other.key", "tls_key", "isn't the key of the certificate"),
        (GOOD / "shop.pem", BAD / "encrypted.key", "tls_key", "encrypted with a passphrase"),
        (GOOD / "shop.pem", BAD / "nowhere", "tls_key", "No such file"),
        (GOOD / "shop.pem", GOOD / "shop.pem", "tls_key", "no private key"),
        (BAD / "damaged.pem", GOOD / "shop.key", "tls_certificate", "can't be used"),
        (GOOD / "shop.key", GOOD / "shop.key", "tls_certificate", "no certificate"),
        (BAD / "no_text", GOOD / "shop.key", "tls_certificate", "not a PEM file"),
        (BAD / "empty", GOOD / "shop.key", "tls_certificate", "no certificate"),
        (GOOD, GOOD / "shop.key", "tls_certificate", "directory"),
    ],
)
def test_unusable_pair_is_refused_with_the_cause(certificate: Path, key: Path, setting: str, words: str):
    with pytest.raises(CertificateError, match=words) as caught:
        read_pair(certificate, key)
    assert caught.value.key == setting
    assert "PRIVATE" not in str(caught.value)


def test_huge_file_is_not_read_completely(tmp_path: Path):
    (tmp_path / "long.pem").write_text((GOOD / "shop.pem").read_text() + "x" * MAX_FILE_BYTES)
    with pytest.raises(CertificateError, match="not a PEM file"):
        read_pair(tmp_path / "long.pem", GOOD / "shop.key")


def test_chain_of_several_certificates(tmp_path: Path):
    (tmp_path / "chain.pem").write_text("words before\n" + (GOOD / "shop.pem").read_text() * 2)
    assert read_pair(tmp_path / "chain.pem", GOOD / "shop.key").browser_error() is None


def test_expired_certificate_is_detected(tmp_path: Path):
    assert pair().browser_error() is None
    expired = read_pair(*make_pair(tmp_path, "old", expired=True))
    assert expired.browser_error() == "certificate has expired"
