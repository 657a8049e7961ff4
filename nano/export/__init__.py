"""The trained model as a checkpoint directory, exactly as the large ones are published."""
