"""The paper's tables (arXiv 2605.11936), as printed: every line, its cells told apart by bars.

What each number is a number of, `paper` says. A cell that is empty here is not printed: it goes on
from the line above. A line of one cell heads those below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Row:
    """A line of numbers.

    Attributes:
        group: The line of one cell above it, "" without one.
        cells: As printed, empty ones filled from above.
    """

    group: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        text: Its lines.
        head: How many of them are the head.
    """

    text: str
    head: int = 1

    @property
    def lines(self) -> list[str]:
        """As the paper prints them, cells apart by blanks."""
        return [" ".join(filter(None, cells)) for cells in self._cells()]

    @property
    def columns(self) -> tuple[str, ...]:
        """The last line of its head."""
        return self._cells()[self.head - 1]

    def rows(self) -> Iterator[Row]:
        """What is below its head."""
        group, above = "", ()
        for cells in self._cells()[self.head :]:
            if len(cells) == 1:
                (group,), above = cells, ()
                continue
            padded = above or ("",) * len(cells)
            above = tuple(own or last for own, last in zip(cells, padded, strict=True))
            yield Row(group, above)

    def _cells(self) -> list[tuple[str, ...]]:
        lines = self.text.strip("\n").splitlines()
        return [tuple(cell.strip() for cell in line.split("|")) for line in lines]


def numbers_in(cell: str) -> list[float]:
    """The numbers of a cell in order, thousands without their commas."""
    return [float(found.replace(",", "")) for found in _NUMBER.findall(cell)]


#: By number.
TABLES: dict[int, Table] = {
    # Random soft prompts beside trained ones.
    1: Table("""
Model | Benchmark | Baseline | RSP | TTSV | SoftCoT | LTPO
Qwen2.5-Math-7B-Instruct | MATH-500 | 83.20 | 84.20 | 83.80 | 82.80 | 83.00
 | GSM8K | 95.45 | 95.68 | 95.30 | 95.00 | 94.84
 | AIME24 | 13.33 | 16.67 | 23.30 | 16.67 | 13.33
Qwen2.5-Math-1.5B-Instruct | MATH-500 | 73.00 | 75.20 | 75.20 | 76.00 | 72.40
 | GSM8K | 85.29 | 85.75 | 85.70 | 84.46 | 84.53
 | AIME24 | 10.00 | 20.00 | 6.70 | 6.67 | 10.00
"""),
    # Accuracy, without the infix; its numbers are Table 6's.
    2: Table(
        """
 | MATH-500 | GSM8K | AIME24
Model | Baseline | RSP(prefix) | RSP(suffix) | Baseline | RSP(prefix) | RSP(suffix) \
| Baseline | RSP(prefix) | RSP(suffix)
Instruct Models
LLaMA-3.1-8B-Inst | 52.20 | 45.00 (-7.2) | 49.40 (-2.8) | 85.75 | 76.35 (-9.4) | 86.73 (+1.0) \
| 6.67 | 3.33 (-3.3) | 10.00 (+3.3)
Qwen2.5-Math-7B-Inst | 83.20 | 81.40 (-1.8) | 83.40 (+0.2) | 95.45 | 94.92 (-0.5) | 95.68 (+0.2) \
| 13.33 | 13.33 (+0.0) | 16.67 (+3.3)
Qwen2.5-Math-1.5B-Inst | 73.00 | 74.80 (+1.8) | 74.20 (+1.2) | 85.29 | 85.29 (+0.0) \
| 84.69 (-0.6) | 10.00 | 13.33 (+3.3) | 20.00 (+10.0)
Base Models + ChatML (Format Mismatch)
Qwen2.5-Math-7B | 52.20 | 59.20 (+7.0) | 70.40 (+18.2) | 58.30 | 56.41 (-1.9) | 75.97 (+17.7) \
| 23.33 | 3.33 (-20.0) | 23.33 (+0.0)
Qwen2.5-Math-1.5B | 34.40 | 63.40 (+29.0) | 51.00 (+16.6) | 37.45 | 67.02 (+29.6) | 50.64 (+13.2) \
| 13.33 | 20.00 (+6.7) | 13.33 (+0.0)
""",
        head=2,
    ),
    # The first token.
    3: Table("""
Metric | τ=2.0 | τ=3.0 | RSP
Spearman ρ | 1.000 | 1.000 | 0.709
Mass outside top-10 | 5.18% | 29.11% | 21.86%
JS divergence | 0.060 | 0.218 | 0.131
Acc (%) | 20.77 ± 1.47 | 1.42 ± 0.35 | 73.30 ± 1.07
"""),
    # Semantic diversity.
    4: Table("""
Metric | Baseline | RSP
Pairwise cos. dist. | 0.0612 | 0.0879
Inter-cluster dist. | 0.0183 | 0.0982
Intra-cluster dist. | 0.0526 | 0.0528
"""),
    # Training: each run at its peak.
    5: Table("""
Method | GSM8K | MATH-500 | College | Minerva | AIME24 | Avg
Base | 57.2 | 52.6 | 18.3 | 13.6 | 8.6 | 30.06
DAPO | 86.3 | 78.2 | 41.4 | 37.5 | 22.6 | 53.20
DAPO + RSP | 87.7 | 78.6 | 42.2 | 39.7 | 23.6 | 54.36
"""),
    # Accuracy by position.
    6: Table("""
Model | Mode | MATH-500 | GSM8K | AIME24
Instruct Models
LLaMA-3.1-8B-Instruct | Baseline | 52.20 | 85.75 | 6.67
 | Prefix | 45.00 (-7.2) | 76.35 (-9.4) | 3.33 (-3.3)
 | Infix | 49.40 (-2.8) | 85.97 (+0.2) | 10.00 (+3.3)
 | Suffix | 49.40 (-2.8) | 86.73 (+1.0) | 10.00 (+3.3)
Qwen2.5-Math-7B-Instruct | Baseline | 83.20 | 95.45 | 13.33
 | Prefix | 81.40 (-1.8) | 94.92 (-0.5) | 13.33 (+0.0)
 | Infix | 84.20 (+1.0) | 95.60 (+0.2) | 16.67 (+3.3)
 | Suffix | 83.40 (+0.2) | 95.68 (+0.2) | 16.67 (+3.3)
Qwen2.5-Math-1.5B-Instruct | Baseline | 73.00 | 85.29 | 10.00
 | Prefix | 74.80 (+1.8) | 85.29 (+0.0) | 13.33 (+3.3)
 | Infix | 75.20 (+2.2) | 85.75 (+0.5) | 6.67 (-3.3)
 | Suffix | 74.20 (+1.2) | 84.69 (-0.6) | 20.00 (+10.0)
Base Models (Raw Text)
Qwen2.5-Math-7B | Baseline | 72.20 | 84.15 | 6.67
 | Prefix | 71.60 (-0.6) | 84.31 (+0.2) | 16.67 (+10.0)
 | Infix | 63.20 (-9.0) | 64.29 (-19.9) | 16.67 (+10.0)
 | Suffix | 55.60 (-16.6) | 54.13 (-30.0) | 13.33 (+6.7)
Qwen2.5-Math-1.5B | Baseline | 61.40 | 77.86 | 16.67
 | Prefix | 64.40 (+3.0) | 74.30 (-3.6) | 10.00 (-6.7)
 | Infix | 63.20 (+1.8) | 73.92 (-3.9) | 10.00 (-6.7)
 | Suffix | 54.60 (-6.8) | 58.61 (-19.3) | 3.33 (-13.3)
Base Models + ChatML (Format Mismatch)
Qwen2.5-Math-7B | Baseline | 52.20 | 58.30 | 23.33
 | Prefix | 59.20 (+7.0) | 56.41 (-1.9) | 3.33 (-20.0)
 | Infix | 62.00 (+9.8) | 69.07 (+10.8) | 23.33 (+0.0)
 | Suffix | 70.40 (+18.2) | 75.97 (+17.7) | 23.33 (+0.0)
Qwen2.5-Math-1.5B | Baseline | 34.40 | 37.45 | 13.33
 | Prefix | 63.40 (+29.0) | 67.02 (+29.6) | 20.00 (+6.7)
 | Infix | 39.20 (+4.8) | 50.42 (+13.0) | 6.67 (-6.7)
 | Suffix | 51.00 (+16.6) | 50.64 (+13.2) | 13.33 (+0.0)
"""),
    # L.
    7: Table("""
Model | MATH-500 | GSM8K | AIME24
LLaMA-3.1-8B-Instruct | 15 | 20 | 15
Qwen2.5-Math-7B-Instruct | 20 | 20 | 20
Qwen2.5-Math-1.5B-Instruct | 20 | 10 | 20
Qwen2.5-Math-7B | 10 | 10 | 20
Qwen2.5-Math-1.5B | 10 | 10 | 20
Qwen2.5-Math-1.5B (ChatML) | 20 | 20 | 10
Qwen2.5-Math-7B (ChatML) | 20 | 20 | 20
"""),
    # LTPO's settings.
    8: Table("""
Parameter | GSM8K | MATH-500 | AIME24
tokens | 8 | 8 | 8
steps | 20 | 20 | 20
top_k | 10 | 10 | 10
sigma | 20 | 20 | 5
sigma_decay | 0.95 | 0.95 | 0.95
lr | 1e-2 | 5e-3 | 5e-2
"""),
    # Distributions along the answer.
    9: Table("""
Metric | Baseline | Prefix | Infix | Suffix | LTPO | SoftCoT | TTSV
Tokens (mean) | 575.7 | 558.4 | 549.9 | 573.3 | 592.3 | 594.4 | 577.4
Entropy (first 5%) | 0.1332 | 0.1366 | 0.1402 | 0.1941 | 0.1662 | 0.4218 | 0.1359
Entropy (overall) | 0.0871 | 0.0881 | 0.0899 | 0.1049 | 0.0909 | 0.1059 | 0.0864
Top-1 Prob (first 5%) | 0.9535 | 0.9523 | 0.9525 | 0.9373 | 0.9437 | 0.9156 | 0.9534
Top-1 Prob (overall) | 0.9684 | 0.9681 | 0.9678 | 0.9647 | 0.9683 | 0.9651 | 0.9685
Varentropy (first 5%) | 0.2181 | 0.2207 | 0.2463 | 0.4010 | 0.2953 | 2.2234 | 0.2174
Varentropy (overall) | 0.1353 | 0.1375 | 0.1422 | 0.2038 | 0.1452 | 0.2404 | 0.1361
"""),
    # Problems solved with and without soft prompts.
    10: Table("""
Pattern | Frequency | Problems
RSP-only correct (Baseline=0/16, RSP≥1/16) | 5/30 (16.7%) | #6, #8, #14, #22, #25
Baseline-only correct (Baseline≥1/16, RSP=0/16) | 0/30 (0%) |
Both correct | 6/30 (20.0%) |
Both wrong | 19/30 (63.3%) |
"""),
    # The evaluation of trainings.
    11: Table("""
Benchmark | # Problems | Temperature | n_sampling | Metric
AIME 2024 | 30 | 1.0 | 32 | Avg@32
AMC 2023 | 40 | 1.0 | 32 | Avg@32
MATH-500 | 500 | 0.0 | 1 | accuracy (mean@1)
GSM8K | 1,319 | 0.0 | 1 | accuracy
OlympiadBench | 675 | 0.0 | 1 | accuracy
Minerva Math | 272 | 0.0 | 1 | accuracy
GaoKao 2023-EN | 385 | 0.0 | 1 | accuracy
"""),
    # The training itself.
    12: Table("""
Field | Value
Train data | MATH Level 3–5 subset (simplelr_math_35, ~8,500 prompts)
Prompt template | qwen-boxed
Train batch size | 1024
PPO mini-batch size | 256 (4 PPO updates per rollout)
Rollouts per prompt G | 8
Max prompt / response length | 2,028 / 2,048
Rollout sampling | temperature 1.0, top-p 1.0, top-k 50
(εlow,εhigh) | (0.2, 0.28)
Dual clip c | 10.0
Loss aggregation | token-mean
KL terms | disabled
Entropy coefficient | 0
Optimizer | AdamW, learning rate 5e-7 (constant), no warmup
Total training | ~10 epochs, ≥80 optimization steps
Save / eval frequency | every 10 steps
RSP (DAPO + RSP only) | suffix injection, L=20, freshly drawn per rollout
Hardware | 4× NVIDIA B200 GPUs
Wall-clock training time | ~12 hours per run
"""),
    # The mean of five benchmarks by step.
    13: Table("""
Step | DAPO | DAPO + RSP
0 | 30.06 | 30.06
10 | 46.40 | 46.22
20 | 49.02 | 49.54
30 | 49.58 | 50.72
40 | 50.62 | 52.06
50 | 50.88 | 52.40
60 | 51.84 | 52.96
70 | 52.52 | 53.86
80 | 53.20 | 54.04
90 | 52.52 | 54.36
100 | 50.54 | 53.64
"""),
}
