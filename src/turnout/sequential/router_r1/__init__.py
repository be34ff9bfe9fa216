"""A language model as the router: it thinks, asks models of the pool in turns, and answers (S7, Router-R1).

| module | purpose |
|---|---|
| `router` | the sequencer |
| `tags`, `prompt`, `describe` | the protocol's words, the rules, one line per model |
| `parse` | what the policy wrote, or the name of what is wrong with it |
| `observe`, `transcript` | what came back, and the whole trace as a conversation |
| `reward` | what an episode is worth: format, then outcome, then cost |
"""

from __future__ import annotations

from turnout.sequential.router_r1.describe import describe_pool
from turnout.sequential.router_r1.parse import Grammar, Violation, parse
from turnout.sequential.router_r1.prompt import system_text
from turnout.sequential.router_r1.reward import RewardR1
from turnout.sequential.router_r1.router import RouterR1
from turnout.sequential.router_r1.tags import Tags

__all__ = ["Grammar", "RewardR1", "RouterR1", "Tags", "Violation", "describe_pool", "parse", "system_text"]
