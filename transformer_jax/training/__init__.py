"""A run: its state, its step, its loop, and what keeps it safe (checkpoints, integrity, preemption) and visible."""
