"""A throwaway certificate authority, by the system's openssl."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.gateway_process import needs

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Authority:
    """An authority whose files are in a folder."""

    folder: Path

    @property
    def file(self) -> Path:
        """Its own certificate."""
        return self.folder / "ca.pem"

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir()
        made = cls(folder)
        made._openssl(
            *("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        )
        return made

    def server(self, name: str, *, days: int = 2) -> ssl.SSLContext:
        """What a server needs to be ``name``; of a certificate that ran out where ``days`` is negative."""
        file = f"{name}{days}"
        self._openssl(
            *("req", *_KEY, "-keyout", f"{file}.key", "-out", f"{file}.csr", "-subj", "/CN=none"),
            *("-addext", f"subjectAltName={name}"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{file}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-copy_extensions", "copy", "-days", str(days), "-out", f"{file}.pem"),
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / f"{file}.pem", self.folder / f"{file}.key")
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run([needs("openssl"), *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)
