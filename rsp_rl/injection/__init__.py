"""How soft prompts get in: the actor's hook, draws made ahead for it; vLLM's prompt and worker."""
