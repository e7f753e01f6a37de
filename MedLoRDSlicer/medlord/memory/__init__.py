"""Memory of a run: sizes in words, what a network's pass takes, and the plan that fits into what is free."""
