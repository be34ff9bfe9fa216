"""What do gates do? Functions from what was chosen to tables: load, change, specialisation, locality.

The common currency is `chosen_TE`, a boolean tensor per layer: which experts computed which token. It holds
every kind of plan, a variable number of experts included; `Recording` keeps it with the gates' probabilities.
"""
