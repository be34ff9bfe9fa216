"""How is a plan run? The same result by several ways: a slow truth, and fast paths held to it.

`Executor.run(x_TD, plan, experts) -> y_TD` is the contract (`contract`). `loop` is the slow truth, `segments`
multiplies each expert's stretch of a plan by itself, `grouped` all of them by torch's grouped product where a
probe says that it works, `batched` few tokens by copies of weights, `triton` by kernels for accelerators,
`packed` where nobody learns by copies in the order that products read; `auto` chooses among the others, and
`make_executor` knows their names. Around products `pair_rows` moves the rows, many of them by kernels.
"""

from __future__ import annotations
