from __future__ import annotations

import numpy as np

from turnout.core import Candidate, Query
from turnout.policies import feasible, obstacles

SEES = Candidate(model="sees", capabilities=frozenset({"vision", "tools"}), context_tokens=1000)
PLAIN = Candidate(model="plain", capabilities=frozenset(), context_tokens=8000, max_output_tokens=3000)
UNKNOWN = Candidate(model="unknown")


def test_capability_and_context_refuse_and_the_unknown_does_not() -> None:
    queries = [
        Query(id="1", text="a", needs=frozenset({"vision"})),
        Query(id="2", text="b", input_tokens=4000),
        Query(id="3", text="c", input_tokens=5001),
        Query(id="4", text="d"),
    ]
    expected_QM = np.array(
        [[True, False, True], [False, True, True], [False, False, True], [True, True, True]]
    )
    assert (feasible(queries, [SEES, PLAIN, UNKNOWN]) == expected_QM).all()


def test_obstacles_say_who_may_not_and_why() -> None:
    query = Query(id="1", text="a", needs=frozenset({"vision"}), input_tokens=2000)
    assert obstacles(query, [SEES, PLAIN, UNKNOWN]) == {
        "sees": "takes 1000 input tokens, the request has 2000",
        "plain[max_output_tokens=3000]": "lacks vision",
    }
