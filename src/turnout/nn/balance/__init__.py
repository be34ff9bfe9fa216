"""Who is overloaded, and what is done about it? Losses, biases, and exact or soft assignment.

Functions of scores and of `chosen_TE` (which experts compute which token), one layer at a time: pooling
layers before a product makes two layers that collapse on different experts look balanced. Axes: T tokens, E
experts.
"""
