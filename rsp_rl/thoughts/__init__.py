"""Input laws: what stands at a position in place of a token's embedding, drawn, recorded, scored.

`law` is the interface, `laws` holds a module a law, `phases` says when one is at work, `stepping`
carries a step out for a batch of requests: the same code in every engine.
"""
