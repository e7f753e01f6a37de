"""Stands in for the package TotalSegmentator where it is not installed: same names, same console, no networks.

What it does is chosen by the variable STAND_IN: see `python_api.totalsegmentator`.
"""
