"""Which blocks does this prompt need once, twice, or not at all? Routers learned from searched paths.

`search` finds for each training question a path that answers it; `labels` turns paths into counts; `training`
fits one small router per block on them; `router` decides. Source: S12, Dr.LLM, arXiv 2510.12773.

This file imports no torch, so that a name can be looked up without it.
"""

from __future__ import annotations
