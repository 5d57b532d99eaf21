"""The method: staged training of a GAN by the feature counts of its images."""
