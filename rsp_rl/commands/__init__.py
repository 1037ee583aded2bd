"""The commands of `rsp-rl`, a module each; imported when they are called."""
