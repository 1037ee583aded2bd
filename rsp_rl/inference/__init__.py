"""Generation with soft prompts: requests, the engines that answer them, and a Python API."""
