"""Rooms as operators see and change them, and the admission loop."""
