"""Feature counts of images, and the groups that they are cut into."""
