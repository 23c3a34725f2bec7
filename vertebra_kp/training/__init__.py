"""The training loop, its state, schedules, runs and trackers."""
