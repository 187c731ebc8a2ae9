"""What the triggerer runs while a sensor waits."""
