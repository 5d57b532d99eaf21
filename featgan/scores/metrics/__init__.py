"""Distances of generated from real images in a classifier's feature space: a file for each."""
