"""Authentication and authorization on the admin listener."""
