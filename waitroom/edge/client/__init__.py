"""Client connections on the public port."""
