"""Rooms as operators see and change them, and the loop that admits visitors."""
