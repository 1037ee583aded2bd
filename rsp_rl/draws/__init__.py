"""What is drawn: the record of a rollout's soft prompt, its seed, the laws, the table they read."""
