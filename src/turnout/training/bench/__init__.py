"""Which router is worth its place? Every method on the same tables, splits, seeds and embeddings.

`prepare` cuts a table once and fits one embedder; `fight` runs what is missing, one JSON a cell, each in a
process of its own, here or on Ray; `summary` turns cells into rows. `turnout bench routers` is the door.
"""
