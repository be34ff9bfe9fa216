"""What would each candidate give on these prompts, and what would it cost?

Contract: `run(prompts, members, scorer, folder=...) -> Done`, of which `table_of` makes an `OutcomeTable`, a
row per (prompt, candidate, sample). Imports: core, datasets (reading prompts), gateway (providers, prices).
It is the one room that spends money of its own accord, so it keeps a cap, and a journal from which a killed
run goes on.
"""

from __future__ import annotations
