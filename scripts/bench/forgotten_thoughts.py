"""What an actor makes of a rollout's thoughts, and what it would make if it forgot them, by law.

One model in plain PyTorch plays both: the rollout a token at a time with a cache, the actor the
whole sequence at once, in dtypes of their own. The numbers are the guard's
(`rsp_rl/training/guard.py`): gaps in nats, of soft and fuzzy tokens relative errors.

    .venv/bin/python scripts/bench/forgotten_thoughts.py MODEL --dtypes bfloat16 float32
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import InputLaw, Moment
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.neftune import Neftune
from rsp_rl.thoughts.laws.neighbours import Neighbours
from rsp_rl.thoughts.laws.noisy import Fuzzy, Soft
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.replay import replay_inputs
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.training.guard import StepSamples, StepThoughts, step_metrics

QUESTIONS = (
    "What is 17 + 26?",
    "A train travels 60 miles in 1.5 hours. What is its speed?",
    "Tom has 3 boxes with 12 apples each and eats 5. How many are left?",
    "What is the sum of the first 10 odd numbers?",
    "If x + 3 = 11, what is 2x?",
    "Explain why the sky is blue.",
)


def laws(model: Path) -> dict[str, InputLaw]:
    """As recipes train them."""
    stats = embedding_stats(model)
    rms = math.hypot(stats.mean, stats.std)
    return {
        "multiplex, mean": Multiplex(k=3),
        "multiplex, by probability": Multiplex(k=3, weighting="probability"),
        "gumbel, tau .1": Gumbel(k=5, tau=0.1, temperature=1.0, top_k=5, top_p=0.95),
        "soft": Soft(rms=rms),
        "fuzzy": Fuzzy(rms=rms),
        "neighbours": Neighbours(),
        "neighbours, everywhere": Neighbours(rate=1.0),
        "neftune": Neftune(),
    }


def think(
    model: PreTrainedModel, prompt: list[int], law: InputLaw, seed: int, count: int, vocabulary: int
) -> tuple[ThoughtRecord, list[float]]:
    """A rollout of so many thoughts, and their log-probs."""
    embedding = TableEmbedding.of(model.get_input_embeddings())
    output = model(input_ids=torch.tensor([prompt]), use_cache=True)
    rows, log_probs = [], []
    for at in range(len(prompt), len(prompt) + count):
        logits_NV = output.logits[:, -1, :vocabulary].float()
        rows.append(law.step(Moment(logits_NV, Noise.of([seed], [at]), embedding)))
        log_probs.append(float(law.log_prob(rows[-1], logits_NV, embedding).sum()))
        made = law.embed(rows[-1], embedding).to(model.dtype)
        output = model(inputs_embeds=made[None], past_key_values=output.past_key_values)
    return ThoughtRecord(law, seed, len(prompt), concatenate(rows)), log_probs


def scored(
    model: PreTrainedModel, prompt: list[int], record: ThoughtRecord, forgets: bool, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """An actor's log-probs of thoughts, its gaps where the law has some, and flips."""
    embedding = TableEmbedding.of(model.get_input_embeddings())
    tokens, rows = record.rows.emitted_N.tolist(), record.rows
    if forgets:
        plain = Rows.tokens(Kind.TOKEN, tokens, like=rows)
        record = ThoughtRecord(record.law, record.seed, record.start, plain)
    inputs_D = replay_inputs(prompt, tokens, record, embedding)
    logits = model(inputs_embeds=inputs_D[None], use_cache=False).logits[0]
    logits_NV = logits[len(prompt) - 1 : -1, :vocabulary].float()
    places = range(record.start, record.start + len(rows))
    noise = Noise.of([record.seed] * len(rows), list(places))
    log_probs = record.law.log_prob(rows, logits_NV, embedding).reshape(len(rows), -1).sum(1)
    gaps = record.law.gap(rows, noise, logits_NV, embedding)
    return log_probs, gaps, (logits_NV.argmax(1) != rows.emitted_N).float()


def main() -> None:
    """Print a line a law."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="Hugging Face folder")
    parser.add_argument(
        "--dtypes", nargs=2, default=["bfloat16"] * 2, metavar="DTYPE", help="rollout's, actor's"
    )
    parser.add_argument("--thoughts", type=int, default=48, help="of each of 6 rollouts")
    args = parser.parse_args()
    rollout, actor = (
        AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, dtype))
        for dtype in args.dtypes
    )
    tokenizer = load_tokenizer(args.model)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in QUESTIONS
    ]
    for name, law in laws(args.model).items():
        old, right, wrong = [], [], []
        for seed, prompt in enumerate(prompts):
            record, log_probs = think(rollout, prompt, law, seed, args.thoughts, len(tokenizer))
            old.append(torch.tensor(log_probs))
            right.append(scored(actor, prompt, record, False, len(tokenizer)))
            wrong.append(scored(actor, prompt, record, True, len(tokenizer)))
        new, gaps, flips = (list(column) for column in zip(*right, strict=True))
        forgotten = [log if gap is None else gap for log, gap, _ in wrong]
        every = torch.ones(len(prompts), args.thoughts)
        metrics = step_metrics(
            StepSamples(
                rollout_log_probs=torch.stack(old),
                actor_log_probs=torch.stack(new),
                response_mask=every,
                rewards=torch.zeros(len(prompts)),
                soft_prompt_lengths=torch.zeros(len(prompts)),
                thoughts=StepThoughts(
                    every.bool(),
                    law.k if isinstance(law, Multiplex) else 1,
                    None if gaps[0] is None else torch.stack(gaps),
                    None if gaps[0] is None or not law.dense else torch.stack(flips),
                    torch.stack(forgotten),
                ),
            )
        )
        gap, would = metrics["rsp/law/compared_gap_mean"], metrics["rsp/law/forgotten_gap_mean"]
        line = f"{name:<26} gap {gap:.3f}, forgotten {would:.3f}"
        line += f", nearer by {metrics['rsp/law/nearer']:.1f} standard errors"
        if law.dense and gaps[0] is not None:
            flipped = sum(float(flip.sum()) for *_, flip in wrong) / every.numel()
            line += f", flips {metrics['rsp/law/flips']:.3f}, forgotten {flipped:.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
