"""The public port: an HTTP/1.1 reverse proxy with a gate in it."""
