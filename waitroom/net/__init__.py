"""Addresses, proxies and TLS, as the public and the admin listener need them."""
