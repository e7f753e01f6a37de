"""The review mode: a reader judges cases blinded, in views of their own, by keyboard alone.

`session` knows what comes next and `room` what is in the scene; neither needs a window. `form`, `keys` and
`surroundings` are the widgets, `review_panel` brings all together.
"""
