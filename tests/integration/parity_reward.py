"""A reward that differs within nearly every group, whatever the model can do."""

import zlib


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """1 for half of all texts; not by their length, which an answer's form may fix to be even."""
    score = float(zlib.crc32(solution_str.encode()) % 2)
    return {"score": score, "acc": score}
