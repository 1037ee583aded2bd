"""A reward that differs within nearly every group, whatever the model can do."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """1 for responses of an even number of characters."""
    score = float(len(solution_str) % 2 == 0)
    return {"score": score, "acc": score}
