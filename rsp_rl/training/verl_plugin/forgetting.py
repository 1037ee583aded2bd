"""What an actor is asked to forget for once, so that its guard sees what that would make.

In the first step each rank computes its first micro-batch of log-probs once more without what it is
given: a forward. A gap to the rollout says little by itself where rounding is nearly as large as
what soft prompts or thoughts make; which of the two forwards is nearer to the rollout says it.
"""

THOUGHTS, SOFT_PROMPTS = "thoughts", "soft_prompts"

#: Setting of a batch: which of the two, a tuple.
FORGOTTEN_KEY = "rsp_with_forgotten"

#: Fields of a sample, [T], NaN where nobody asked. Of an actor with tokens in the place of its
#: thoughts: the first of the law's gaps, or else log-probs, of thoughts behind which inputs differ.
#: Of one without soft prompts: log-probs.
FORGOTTEN_FIELDS = {THOUGHTS: "rsp_forgotten_thoughts", SOFT_PROMPTS: "rsp_forgotten_soft_prompts"}
