"""How does a loss reach a gate through a choice? Estimators, and the exact gradient to judge them by.

A choice of experts has no derivative. `straight_through`, `score_function` and `sparse_mixer` give it one in
three ways; a ReLU gate needs none. `truth` enumerates small problems, so that bias and variance are measured.
"""
