"""What one worker keeps of a room."""
