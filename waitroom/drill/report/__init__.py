"""The live figures of a drill, and its summary."""
