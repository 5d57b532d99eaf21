"""The Ray that a sweep runs on, and whether its nodes are fit for it."""
