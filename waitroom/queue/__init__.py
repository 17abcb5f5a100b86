"""The queue: its store, scripts, positions and reference model."""
