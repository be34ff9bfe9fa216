"""Which routers train a network?

Contract: that of `turnout.routers`. They learn with torch (extra `nn`), which is imported by `fit` and
`add_candidate` alone: a fitted router answers, is saved and is loaded with numpy, so that an artifact runs
where torch is not installed.

Imports: `core`, `features`, and the helpers of `routers`. The names stand in the table of `turnout.routers`.
"""

from __future__ import annotations
