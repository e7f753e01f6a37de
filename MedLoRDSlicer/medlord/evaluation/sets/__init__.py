"""A set of synthetic volumes against a set of real ones: distances of deep features and of regional volumes."""
