# What the Multiplex recipes share: section 4 of arXiv 2601.08808, and the authors' code.
multiplex=(
  law=multiplex
  law.weighting=probability
  law.clip_per_draw=true
  actor_rollout_ref.actor.policy_loss.loss_mode=rsp_draws
  data.train_batch_size=128
  data.max_response_length=4096
  actor_rollout_ref.actor.ppo_mini_batch_size=128
  actor_rollout_ref.actor.optim.lr=1e-6
  actor_rollout_ref.rollout.top_k=-1
)
