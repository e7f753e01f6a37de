"""Everything of MedLoRDSlicer that touches MRML, VTK or Qt. It never imports torch or MONAI."""
