"""Training with Lightning: trainer, schedules, callbacks, checkpoint format, logged scalars."""
