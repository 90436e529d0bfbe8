"""What makes a training step faster by going round the framework."""
