"""The sweep file, and the grid of runs that it asks for."""
