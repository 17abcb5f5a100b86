"""What the gateway counts, and how Prometheus is told."""
