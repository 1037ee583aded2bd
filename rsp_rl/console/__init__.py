"""What a command shows while it works, and where everything else goes."""
