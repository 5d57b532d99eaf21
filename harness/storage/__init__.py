"""Files on disk, on a mount or in a bucket: atomic writes, lock, retries."""
