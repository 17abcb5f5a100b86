"""The gateway's processes: how they start, are supervised and end, and their data."""
