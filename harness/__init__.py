"""The engine: everything that touches Ray, files and people."""
