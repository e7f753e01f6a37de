"""The segmenter TotalSegmentator, in a process of its own, so that a crash or a full GPU stays there.

J. Wasserthal et al., "TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images", Radiology:
Artificial Intelligence 2023, doi:10.1148/ryai.230024. The package is not part of this one (extra `checks`).
"""
