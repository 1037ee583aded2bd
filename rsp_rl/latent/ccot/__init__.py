"""Compressed Chain of Thought, CCOT: few hidden states in the place of a whole chain.

Cheng, Van Durme: "Compressed Chain of Thought: Efficient Reasoning Through Dense Representations",
arXiv 2412.13171. One frozen model, theta, with two LoRA adapters: the generator phi predicts the
hidden states that theta has at some positions of the full chain, the decoder psi answers from them.
theta reads the question, phi thinks, psi answers, over one key-value cache.

No code of the authors is public, and the paper leaves much open. What is ours is named so where it
stands: mostly in `rsp_rl.latent.ccot.settings`.
"""
