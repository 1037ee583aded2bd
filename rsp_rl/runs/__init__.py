"""What a run leaves: its folder, its checkpoints, its Ray jobs, its report."""
