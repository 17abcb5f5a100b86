"""What a drill shows while it runs, and its summary."""
