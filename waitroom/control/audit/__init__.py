"""The audit log, and changes of accounts that are written to it."""
