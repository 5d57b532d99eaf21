"""Decoding of image files, and the packs that training reads."""
