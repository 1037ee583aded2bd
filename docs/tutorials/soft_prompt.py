# %% [markdown]
# # Draw, place and see a soft prompt
#
# A Random Soft Prompt is L vectors that stand among the embeddings of a prompt's tokens. They are
# drawn for each rollout and never trained. Here one is drawn for a tiny model, set into a prompt,
# and drawn as a picture beside the embeddings of real tokens.
#
# It takes a processor, no GPU; the model, 0.4M parameters, is made in half a minute or two, once
# for all tutorials that run in one folder.

# %%
from pathlib import Path

from rsp_rl.tiny import make_tiny_model

folder = Path("runs/tutorials")
model = make_tiny_model(folder / "model", steps=300, threads=1)

# %% [markdown]
# ## The law
#
# Rows are independent, and so are their entries: normal, with mean and standard deviation of *all*
# entries of the pretrained embedding table (paper, Eq. 1). A soft prompt is thus as large as real
# embeddings are, and in a direction that none of them has.

# %%
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(model)
network = AutoModelForCausalLM.from_pretrained(model)
table = network.get_input_embeddings().weight.detach().float()  # [V, d]
mean, std = table.mean().item(), table.std(correction=0).item()
print(f"{len(table)} tokens of {table.shape[1]} numbers: mean {mean:.4f}, deviation {std:.4f}")

# %% [markdown]
# ## The record
#
# A training run stores no soft prompt. A rollout has a *record* of it: seed, place, L and the law.
# vLLM draws from the record when it generates, the actor draws again from the same record when it
# trains, and both get the same numbers, bit for bit.

# %%
from dataclasses import replace

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.placement.chat import place_in_chat

question = [{"role": "user", "content": "Compute 7+2-4."}]
placed = place_in_chat(tokenizer, question, length=8)

record = SoftPromptRecord(
    seed=1,
    start=placed.start,
    length=8,
    mean=mean,
    std=std,
    dtype="float32",
    placeholder_id=tokenizer.pad_token_id,
)
drawn = record.draw(table.shape[1])  # [L, d]
again = SoftPromptRecord.from_tensor(record.to_tensor()).draw(table.shape[1])
other = replace(record, seed=2).draw(table.shape[1])
print("the record on its way, ten numbers:", record.to_tensor().tolist())
print("drawn again from it, equal to the bit:", torch.equal(drawn, again))
print("equal with another seed:", torch.equal(drawn, other))

# %% [markdown]
# ## The place
#
# `suffix`, the paper's choice for training, is right before the token that closes the user's turn.
# All other tokens stay what they are without a soft prompt. `prefix` is before everything; `infix`
# has a description of the soft prompt in words before it.

# %%
for position in ("suffix", "prefix"):
    at = place_in_chat(tokenizer, question, length=8, position=position)
    tokens = tokenizer.convert_ids_to_tokens(at.token_ids)
    tokens[at.start : at.start + 8] = ["[H]"] * 8
    print(f"{position}, from token {at.start} on:", " ".join(map(repr, tokens)).replace("'", ""))

# %% [markdown]
# A placeholder, the padding token, stands at these positions wherever tokens are needed. What the
# model reads is this:

# %%
inputs = network.get_input_embeddings()(torch.tensor(placed.token_ids)).detach()
inputs[record.start : record.start + record.length] = drawn
with torch.no_grad():
    answers = network(inputs_embeds=inputs[None]).logits[0, -1]
print("likeliest first token of the answer:", repr(tokenizer.decode([int(answers.argmax())])))

# %% [markdown]
# ## The picture
#
# On the left the table and the soft prompt, in the two directions in which the table varies most;
# on the right the lengths of both; below the prompt, H where it stands.

# %%
import matplotlib.pyplot as plt

centred = table - table.mean(0)
directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
tokens_2 = centred @ directions.T
drawn_2 = (drawn - table.mean(0)) @ directions.T

figure, axes = plt.subplot_mosaic("ab;cc", figsize=(9, 5), height_ratios=(4, 1), layout="tight")
axes["a"].scatter(*tokens_2.T, s=12, color="#888888", label=f"{len(table)} tokens")
axes["a"].scatter(*drawn_2.T, s=40, color="#d95f02", label="H, 8 rows")
axes["a"].set_title("the table's two main directions")
axes["a"].legend()
axes["b"].hist(table.norm(dim=1), bins=20, color="#888888", density=True)
for row in drawn:
    axes["b"].axvline(row.norm(), color="#d95f02")
axes["b"].set_title("lengths of the tokens' rows and of H's")
for number, token in enumerate(tokenizer.convert_ids_to_tokens(placed.token_ids)):
    soft = 0 <= number - record.start < record.length
    axes["c"].add_patch(plt.Rectangle((number, 0), 0.95, 1, color="#d95f02" if soft else "#dddddd"))
    text = "H" if soft else repr(token)[1:-1]
    axes["c"].text(number + 0.48, 0.5, text, ha="center", va="center", rotation=90, fontsize=8)
axes["c"].set(xlim=(0, len(placed.token_ids)), ylim=(0, 1), title="the prompt")
axes["c"].axis("off")
figure.savefig(folder / "soft_prompt.png", dpi=150)
print("picture:", folder / "soft_prompt.png")

# %% [markdown]
# Next: [generate with it](generate.py). What else may be drawn and where it may stand: [the
# dials](../your_own_run.md#beyond-the-paper-the-dials-of-rsp).
