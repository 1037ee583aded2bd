"""Latent reasoning that is trained by supervision: thoughts are hidden states."""
