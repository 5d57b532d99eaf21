"""A run of the grid as a Ray Tune trial."""
