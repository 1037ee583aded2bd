"""What is drawn: the record of a rollout's soft prompt, its seed, and the laws."""
