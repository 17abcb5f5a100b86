"""What the gateway tells its operators of how it stands."""
