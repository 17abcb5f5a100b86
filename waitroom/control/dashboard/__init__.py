"""The dashboard and its live feed."""
