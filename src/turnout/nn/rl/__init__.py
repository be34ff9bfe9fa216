"""Teaching a language model a task of several turns by reward: a warm start, then GRPO.

| module | purpose |
|---|---|
| `dialogue` | what a task must do: a prompt, replies, and in the end a reward |
| `words` | a word-level tokenizer, for models small enough to train in minutes |
| `rollout` | many dialogues at once with one model: it writes, the task replies |
| `demonstrations` | the warm start: batches whose loss falls on the model's own turns only |
| `grpo` | TRL's `GRPOTrainer` over these rollouts; needs the extra `rl` |

The room knows no task. A task of routing is made in `turnout.sequential.router_r1.dialogue` and handed in.
"""

from __future__ import annotations
