"""The state and operations of a room in one worker."""
