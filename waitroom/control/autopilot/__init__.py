"""The autopilot, which finds and holds the admission rate."""
