"""Which tokens of a chain thoughts stand for.

Evenly spaced, k = ceil(r m) of m (arXiv 2412.13171, sections 3.2 and 5.4, where this does about as
well as a learned scorer). How exactly is ours: the chain is cut into k pieces as even as they can
be, and a thought stands for its piece's last token, which alone has seen all of it. So the last
thought is the chain's end, and with r = 1 every token has its thought.
"""

from __future__ import annotations

from rsp_rl.latent.ccot.settings import times


def evenly_spaced(length: int, ratio: float) -> list[int]:
    """Positions from 0 in a chain, in order; none at ratio 0.

    Args:
        length: m, tokens of the chain.
        ratio: r, from 0 to 1.
    """
    count = times(ratio, length)
    return [-(-number * length // count) - 1 for number in range(1, count + 1)]
