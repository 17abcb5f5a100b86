"""The line: its store, its scripts, its positions and its reference model."""
