"""Training by Lightning: the trainer, schedules, callbacks, checkpoints and logged scalars."""
