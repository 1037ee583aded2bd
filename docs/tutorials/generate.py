# %% [markdown]
# # Generate with a soft prompt and see the first token shift
#
# With temperature 0 a model gives one answer to a question. With a soft prompt in front of its
# answer it gives another to each draw: that is what RSP is for. Here both are asked of the tiny
# model, and then what a soft prompt does to the very first token.

# %%
from pathlib import Path

from rsp_rl.tiny import make_tiny_model

folder = Path("runs/tutorials")
model = make_tiny_model(folder / "model", steps=300, threads=1)

# %% [markdown]
# ## Answers
#
# `Generator` runs a model on vLLM, or on plain `transformers`, which starts at once and is the
# reference that vLLM is held against. `plain-chat` puts the question alone into the chat template,
# as this model was trained.

# %%
from rsp_rl.inference.generator import Generator
from rsp_rl.inference.requests import EngineOptions

options = EngineOptions(kind="huggingface")
question = "Compute 7+2-4+1."
asked = {"samples": 8, "temperature": 0.0, "max_tokens": 40}
with Generator(str(model), template="plain-chat", options=options) as generator:
    plain = generator.generate(question, **asked)
    soft = generator.generate(question, length=8, **asked)
    prefix = generator.generate(question, length=8, position="prefix", **asked)
    again = generator.generate(question, length=8, **asked)

for name, answers in (("none", plain), ("suffix", soft), ("prefix", prefix)):
    texts = [answer.text for answer in answers]
    print(f"soft prompt {name}: {len(set(texts))} different answers of {len(texts)}")
    for text in sorted(set(texts)):
        print(f"  {texts.count(text)} x {text!r}")
print("the same draws give the same answers:", [a.text for a in soft] == [a.text for a in again])

# %% [markdown]
# All of it is greedy: what differs is H alone. The draws follow from `seed`, question and number of
# the sample, so that the last line holds wherever this is run.
#
# ## The first token
#
# A forward by hand: the prompt's embeddings with H in its place, and the distribution of what comes
# after. `Table 3` of the paper asks this of every problem of a benchmark.

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.placement.chat import place_in_chat

tokenizer = AutoTokenizer.from_pretrained(model)
network = AutoModelForCausalLM.from_pretrained(model)
embed = network.get_input_embeddings()
mean, std = embed.weight.mean().item(), embed.weight.std(correction=0).item()


@torch.no_grad()
def first_token(length: int, seed: int = 0) -> torch.Tensor:
    """Probabilities of the answer's first token, [V]."""
    placed = place_in_chat(tokenizer, [{"role": "user", "content": question}], length=length)
    inputs = embed(torch.tensor(placed.token_ids))
    law = {"mean": mean, "std": std, "dtype": "float32", "placeholder_id": tokenizer.pad_token_id}
    record = SoftPromptRecord(seed=seed, start=placed.start, length=length, **law)
    inputs[placed.start : placed.start + length] = record.draw(inputs.shape[1])
    return network(inputs_embeds=inputs[None]).logits[0, -1].softmax(-1)


without = first_token(0)
draws = torch.stack([first_token(8, seed) for seed in range(64)])
print("token          without   with: mean  least   most, of 64 draws")
for token in without.topk(5).indices:
    column = draws[:, token]
    shown = f"{tokenizer.decode([int(token)])!r:14} {without[token]:7.3f}   {column.mean():10.3f}"
    print(f"{shown}  {column.min():.3f}  {column.max():.3f}")

# %%
import matplotlib.pyplot as plt

top = without.topk(5).indices
figure, axis = plt.subplots(figsize=(7, 3), layout="tight")
axis.boxplot(draws[:, top].numpy(), whis=(0, 100), label="64 soft prompts")
axis.plot(range(1, 6), without[top], "D", color="#d95f02", label="without")
axis.set_xticks(range(1, 6), [repr(tokenizer.decode([int(token)])) for token in top])
axis.set_ylabel("probability as first token")
axis.legend()
figure.savefig(folder / "first_token.png", dpi=150)
print("picture:", folder / "first_token.png")

# %% [markdown]
# ## Over a benchmark
#
# The same for many problems, with the paper's three measures and intervals, by two commands: one
# generates and keeps every answer, the other reads the draws and asks the model again. As often in
# this harness the second needs no more than the folder that the first has left.

# %%
import subprocess
import sys


def rsp_rl(*arguments: str | Path) -> None:
    """What the command `rsp-rl` does, and what it prints."""
    command = [sys.executable, "-m", "rsp_rl.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    done.check_returncode()


asked = ["--benchmark", "arithmetic", "--limit", "20", "--template", "plain-chat"]
asked += ["--max-tokens", "40", "--samples", "4", "--temperature", "1", "--engine", "huggingface"]
answers = folder / "answers"
rsp_rl("generate", "--model", model, *asked, "--rsp.length", "8", "--output", answers)
[evaluation] = answers.iterdir()
rsp_rl("analyze", "first-token", evaluation, "--output", folder / "first_token")

# %% [markdown]
# In the table the rows `τ = 2` and `τ = 3` are the baseline at higher temperatures: they move mass
# to unlikely tokens and leave the ranks as they are (rho 1). A soft prompt changes the ranks.
#
# Next: [train five steps](train.py). More of generation: [generation with soft
# prompts](../generation.md); of the analyses: [analyses](../analyses.md).
