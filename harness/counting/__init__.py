"""From a source of images to a feature table and an image pack, through Ray Data."""
