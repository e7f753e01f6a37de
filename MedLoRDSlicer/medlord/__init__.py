"""MedLoRD engine: synthetic CT from a segmentation, without Slicer.

Importing this package is cheap: it loads neither torch nor MONAI. The public functions live in the modules
named after their concept (`volumes`, `conditions`, `synthesis`, ...).
"""

__version__ = "0.1.0"
