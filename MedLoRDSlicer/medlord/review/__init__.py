"""The blinded review: studies without a trace of their sources, answers that survive a crash, statistics.

What a reader's program needs (`study`, `rubric`, `order`, `answers`, `sitting`) imports neither numpy nor torch, so
it starts at once; `create` and `cases` work on voxels, the statistics need the extra `review`.
"""
