"""Certificates for tests, made by the system's openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.gateway_process import needs

NAME = "shop.test"


def make_pair(folder: Path, name: str, *, expired: bool = False, host: str = NAME) -> tuple[Path, Path]:
    """A self-signed certificate and its key, in files of their own."""
    openssl = needs("openssl")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{host}"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key), *subject]
    if not expired:
        run("req", "-x509", *new, "-days", "30", "-out", str(certificate))
        return certificate, key
    run("req", *new, "-out", f"{name}.csr")
    (folder / f"{name}.index").touch()
    (folder / f"{name}.cnf").write_text(
        f"[ca]\ndefault_ca=it\n[it]\ndatabase={name}.index\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\n"
        "policy=any\n[any]\ncommonName=supplied\n"
    )
    dates = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"]
    signed = ["-selfsign", "-keyfile", str(key), "-in", f"{name}.csr", "-out", str(certificate), "-notext"]
    run("ca", "-batch", "-config", f"{name}.cnf", *dates, *signed)
    return certificate, key
