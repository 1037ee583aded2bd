"""Where a soft prompt goes in a prompt: chat, raw text or literal template, tokens."""
