"""What a review session can be doing."""

INTRODUCTION = "introduction"
READING = "reading"
FEEDBACK = "feedback"
PAUSED = "paused"
BREAK = "break"
FINISHED = "finished"
