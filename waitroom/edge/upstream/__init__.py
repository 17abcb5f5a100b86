"""Connections to the upstream's addresses: pooled, balanced and health-checked."""
