"""How soft prompts get in: the hook on the actor's input embedding; vLLM's prompt and worker."""
