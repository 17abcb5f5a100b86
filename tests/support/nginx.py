"""Debian's nginx, as tests set it up: in one folder, as whoever runs them, with nothing of the system's."""

from __future__ import annotations

import os
from pathlib import Path

from support.gateway_process import needs

CONFIG = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""


def nginx_command(folder: Path, http: str) -> list[str]:
    """Writes a configuration with this in its http block; returns the command. Its log is ``error.log``."""
    os.makedirs(folder, exist_ok=True)
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(CONFIG.format(user=user, folder=folder, http=http))
    return [needs("nginx"), "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(config)]
