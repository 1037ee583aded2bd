"""The commands of `rsp-rl` but `train`, a module each; imported when they are called."""
