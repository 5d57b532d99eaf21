"""The files that a sweep writes: schemas and reading."""
