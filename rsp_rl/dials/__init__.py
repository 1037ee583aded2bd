"""What a run asks for: the RSP options, their courses over the steps, which rollouts they touch."""
