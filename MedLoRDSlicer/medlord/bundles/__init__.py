"""Model bundles: what a model is on disk, how it is found, checked and loaded."""
