"""Which gate is worth its price? The same small language model, trained with every gate on equal terms.

`contenders` says how each gate takes part, `model` holds the model, `cells` trains one of them with one seed,
`fight` runs all of them and goes on after an interruption, `summary` and `picture` tell what came of it.
`turnout bench gates` is the door.
"""

from __future__ import annotations
