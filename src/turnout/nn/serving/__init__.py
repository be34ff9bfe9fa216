"""How is a local model served, at several depths and with several adapters?

`Engine` runs a `transformers` model in a thread of its own: it batches waiting requests, streams answers and
lets cancelled ones go. A *variant* is one way to run the model (a compute budget, an adapter); to the pool of
a gateway each is a candidate. This file imports no torch.
"""
