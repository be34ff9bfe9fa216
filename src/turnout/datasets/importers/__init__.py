"""How are foreign outcome tables read? One file per format; `turnout.datasets.registry` names them."""

from __future__ import annotations
