"""The audit log, and the account changes recorded in it."""
