"""Measurements: how good the bundled model is, how fast and how large the published configurations are.

Long and not part of the tests; `medlord bench` runs them. Importing this package does not import torch.
"""
