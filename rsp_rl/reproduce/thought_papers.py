"""Published numbers of continuous-token reasoning, as far as they are of benchmarks that are here.

Tables of mathematics of Soft Thinking (arXiv 2505.15778) and of "LLMs are Single-threaded
Reasoners" (arXiv 2508.03440), as printed in talks about them: two papers on the same two models,
whose numbers for the same method differ. Lengths are means over right answers. Both judge by rule
and then by a language model, which moves scores by points: a difference of that size says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from rsp_rl.analysis.law_table import ACCURACY, RIGHT_TOKENS
from rsp_rl.analysis.thoughts import GREEDY, SAMPLED
from rsp_rl.reproduce.paper import PaperNumber, Quantity
from rsp_rl.reproduce.tables import Table

SOFT_THINKING, SINGLE_THREADED = "arXiv 2505.15778", "arXiv 2508.03440"

#: By paper; the average over a paper's benchmarks is left to the reader, who may lack some of them.
TABLES: dict[str, tuple[Table, ...]] = {
    SOFT_THINKING: (
        Table(
            """
 | Accuracy ↑ | | | | | Generation Length ↓
 | MATH 500 | AIME 2024 | GSM8K | GPQA Diamond | Avg. | MATH 500 | AIME 2024 | GSM8K \
| GPQA Diamond | Avg.
QwQ-32B [13]
CoT Thinking | 97.66 | 76.88 | 96.67 | 64.17 | 83.84 | 4156 | 12080 | 1556 | 8095 | 6472
CoT Thinking (Greedy) | 97.00 | 80.00 | 96.57 | 65.15 | 84.68 (↑ 0.84) | 3827 | 11086 | 1536 \
| 7417 | 5967 (↓ 7.8%)
Soft Thinking | 98.00 | 83.33 | 96.81 | 67.17 | 86.32 (↑ 2.48) | 3644 | 10627 | 1391 | 7213 \
| 5719 (↓ 11.6%)
DeepSeek-R1-Distill-Qwen-32B [38]
CoT Thinking | 94.50 | 72.08 | 95.61 | 63.10 | 81.32 | 3543 | 9347 | 875 | 6218 | 4995
CoT Thinking (Greedy) | 93.00 | 63.33 | 95.30 | 59.09 | 77.68 (↓ 3.64) | 3651 | 8050 | 1048 \
| 8395 | 5286 (↑ 5.8%)
Soft Thinking | 95.00 | 76.66 | 95.83 | 64.64 | 83.03 (↑ 1.71) | 3373 | 6620 | 785 | 4722 \
| 3875 (↓ 22.4%)
DeepSeek-R1-Distill-Llama-70B [38]
CoT Thinking | 94.70 | 70.40 | 94.82 | 65.34 | 81.31 | 3141 | 8684 | 620 | 5500 | 4486
CoT Thinking (Greedy) | 94.61 | 73.33 | 93.60 | 66.16 | 81.92 (↑ 0.61) | 2877 | 9457 | 606 \
| 4443 | 4345 (↓ 3.1%)
Soft Thinking | 94.80 | 73.33 | 94.90 | 66.66 | 82.42 (↑ 1.11) | 3021 | 6644 | 597 | 4470 \
| 3683 (↓ 17.9%)
""",
            head=2,
        ),
    ),
    SINGLE_THREADED: (
        Table(
            """
Thinking Mode | AIME24 | AIME25 | MATH500 | AMC23 | GPQA-Diamond | HumanEval | MBPP \
| LiveCodeBench | Avg
Deepseek-R1-Distill-Qwen-32B
Token (Greedy) | 66.66 | 50.00 | 92.20 | 85.00 | 60.10 | 87.20 | 88.71 | 42.65 | 71.57
Token (Sampling) | 72.08 | 55.63 | 94.50 | 95.46 | 60.60 | 97.25 | 95.13 | 57.35 | 78.50
Soft (Vanilla) | 62.00 | 49.17 | 91.60 | 90.00 | 60.10 | 86.41 | 87.93 | 44.80 | 72.13
QwQ-32B
Token (Greedy) | 80.00 | 70.00 | 97.00 | 100.00 | 64.14 | 95.12 | 96.10 | 58.78 | 82.64
Token (Sampling) | 77.92 | 67.50 | 96.20 | 97.50 | 62.63 | 98.17 | 96.89 | 62.00 | 82.35
Soft (Vanilla) | 76.67 | 62.29 | 96.20 | 98.75 | 59.60 | 93.90 | 95.33 | 57.71 | 80.06
Skywork-OR1-32B
Token (Greedy) | 76.67 | 73.33 | 95.80 | 90.00 | 56.06 | 81.71 | 86.38 | 54.84 | 76.85
Token (Sampling) | 78.75 | 71.25 | 96.40 | 98.28 | 62.62 | 96.95 | 97.28 | 62.37 | 82.99
Soft (Vanilla) | 79.16 | 69.38 | 96.00 | 97.97 | 59.60 | 85.37 | 90.66 | 55.56 | 79.21
"""
        ),
        Table(
            """
 | AIME24 | AIME25 | MATH500 | AMC23 | GPQA-Diamond | HumanEval | MBPP | LiveCodeBench | Avg
Deepseek-R1-Distill-Qwen-32B
Token (Sampling) | 72.08 | 55.63 | 94.50 | 95.46 | 60.60 | 97.25 | 95.13 | 57.35 | 78.50
Soft (Vanilla) | 62.00 | 49.17 | 91.60 | 90.00 | 60.10 | 86.41 | 87.93 | 44.80 | 72.13
Soft (Dirichlet) | 69.79 | 54.58 | 94.60 | 94.53 | 62.12 | 98.17 | 95.72 | 57.35 | 78.36
Soft (Gumbel) | 72.92 | 55.42 | 96.00 | 95.62 | 63.13 | 98.17 | 95.64 | 59.50 | 79.55
QwQ-32B
Token (Sampling) | 77.92 | 67.5 | 96.20 | 97.5 | 62.63 | 98.17 | 96.89 | 62.00 | 82.35
Soft (Vanilla) | 76.67 | 62.29 | 96.20 | 98.75 | 59.60 | 93.90 | 95.33 | 57.71 | 80.06
Soft (Dirichlet) | 76.67 | 68.13 | 96.60 | 96.56 | 61.62 | 96.34 | 95.72 | 59.50 | 81.39
Soft (Gumbel) | 78.96 | 68.95 | 97.20 | 98.28 | 67.67 | 97.56 | 97.66 | 62.72 | 83.04
Skywork-OR1-32B
Token (Sampling) | 78.75 | 71.25 | 96.40 | 98.28 | 62.62 | 96.95 | 97.28 | 62.37 | 82.99
Soft (Vanilla) | 79.16 | 69.38 | 96.00 | 97.97 | 59.60 | 85.37 | 90.66 | 55.56 | 79.21
Soft (Dirichlet) | 78.96 | 71.25 | 96.20 | 97.50 | 66.16 | 96.34 | 97.28 | 61.29 | 83.12
Soft (Gumbel) | 79.79 | 73.75 | 97.40 | 98.59 | 67.67 | 97.56 | 98.05 | 64.16 | 83.41
"""
        ),
    ),
}

#: Conditions as `rsp_rl.analysis.thoughts.law_name` has them.
_CONDITIONS = {
    "CoT Thinking": SAMPLED,
    "CoT Thinking (Greedy)": GREEDY,
    "Soft Thinking": "soft_thinking",
    "Token (Greedy)": GREEDY,
    "Token (Sampling)": SAMPLED,
    "Soft (Vanilla)": "soft_thinking",
    "Soft (Dirichlet)": "dirichlet",
    "Soft (Gumbel)": "gumbel",
}

_BENCHMARKS = {
    "MATH 500": "math500",
    "AIME 2024": "aime24",
    "GSM8K": "gsm8k",
    "AIME24": "aime24",
    "MATH500": "math500",
    "AMC23": "amc23",
}


def _numbers() -> Iterator[PaperNumber]:
    seen = set()
    for source, tables in TABLES.items():
        for table in tables:
            for row in table.rows():
                model = row.group.partition(" [")[0].replace("Deepseek", "DeepSeek")
                condition = _CONDITIONS[row.cells[0]]
                metrics = [ACCURACY] * 5 + [RIGHT_TOKENS] * 5
                if source == SINGLE_THREADED:
                    metrics = [ACCURACY] * 9
                for name, metric, cell in zip(
                    table.columns[1:], metrics, row.cells[1:], strict=True
                ):
                    if name not in _BENCHMARKS:
                        continue
                    quantity = Quantity("laws", metric, condition, _BENCHMARKS[name])
                    if (source, model, quantity) in seen:  # the second table repeats rows
                        continue
                    seen.add((source, model, quantity))
                    percent = metric == ACCURACY
                    yield PaperNumber(
                        source,
                        quantity,
                        float(cell) / 100 if percent else float(cell),
                        model,
                        shown="percent" if percent else "whole",
                        unknown=("answers a problem",),
                    )


#: All of them.
NUMBERS: tuple[PaperNumber, ...] = tuple(_numbers())
