"""The gateway's counters, and their export to Prometheus."""
