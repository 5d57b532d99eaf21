"""Files that the runs of a sweep share, made once before any run."""
