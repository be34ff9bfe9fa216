"""How is a plan run? The same result by several ways: a slow truth, and fast paths held to it.

`Executor.run(x_TD, plan, experts) -> y_TD` is the contract (`contract`). `loop` is the slow truth.
"""

from __future__ import annotations
