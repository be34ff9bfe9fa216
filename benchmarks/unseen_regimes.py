"""This module lists the regimes of unseen tables: some to develop on, others to report.

The two lists share no text source, no recorded table, no seed and no combination of settings. A rule of
`auto` may be chosen by looking at `DEVELOP`; nobody looks at `REPORT` before the rules are fixed.
"""

from __future__ import annotations

from benchmarks.unseen_worlds import Regime

DEVELOP_SEED = 1_000
REPORT_SEED = 7_000


def _made(name: str, source: str, **settings: object) -> Regime:
    return Regime(name=name, source=source, **settings)  # type: ignore[arg-type]


def _real(name: str, source: str, **settings: object) -> Regime:
    return Regime(name=name, source=source, is_recorded=True, **settings)  # type: ignore[arg-type]


DEVELOP = (
    _made("plain", "clinc150"),
    _made("plain, topics told", "clinc150", tasks="topic"),
    _made("small, half empty", "clinc150", num_queries=500, fill=0.5, tasks="topic"),
    _made("small, wide, half empty", "clinc150", num_queries=600, num_candidates=40, fill=0.5),
    _made("half empty by topic", "metatool", fill=0.5, missing="by_topic", tasks="topic"),
    _made("half empty by failure", "metatool", fill=0.5, missing="by_failure"),
    _made("few answers of some", "metatool", fill=0.4, missing="by_candidate", num_candidates=12),
    _made("two equal ones", "clinc150", num_candidates=2, abilities="equal", num_queries=1_000),
    _made("nothing to learn", "metatool", signal=0.0, num_candidates=10),
    _made("nothing to learn, half empty", "clinc150", signal=0.0, num_queries=800, fill=0.5),
    _made("one above all", "clinc150", abilities="dominant", num_candidates=20),
    _made("preferences", "metatool", kind="preference", num_candidates=16),
    _made("graded, labels told", "clinc150", kind="graded", tasks="label"),
    _made("greek, repeats", "metatool", script="greek", repeats=0.3, tasks="topic"),
    _made("cheap is good", "clinc150", prices="adverse", num_queries=3_000),
    _made("large", "metatool", num_queries=12_000, num_candidates=5, signal=0.5),
    _real("open9 quarter", "open9", num_queries=700, num_candidates=6, fill=0.5, num_test=1_500),
    _real("reason18 pieces", "reason18", num_candidates=9, fill=0.6, num_test=1_000),
    _real("llmrouter pieces", "llmrouter", num_queries=1_500, num_candidates=6, fill=0.5),
    _real("lookahead pieces", "lookahead", num_queries=1_500, num_candidates=4, tasks="topic"),
    _real("zeroeval pieces", "zeroeval", num_queries=1_000, num_candidates=20, fill=0.5, tasks="topic"),
)

REPORT = (
    _made("banking, 8 candidates", "banking77", num_topics=20, signal=0.7),
    _made("home, topics told", "hwu64", num_topics=10, tasks="topic", num_candidates=6),
    _made("home, labels told, graded", "hwu64", tasks="label", kind="graded", num_candidates=10),
    _made("banking, wrong topics told", "banking77", tasks="noisy", num_queries=3_000, num_topics=15),
    _made("500 x 3", "hwu64", num_queries=500, num_candidates=3, num_topics=6, signal=1.0),
    _made("500 x 80, half empty", "banking77", num_queries=500, num_candidates=80, fill=0.5),
    _made("1,500 x 30, half empty", "hwu64", num_queries=1_500, num_candidates=30, fill=0.5, tasks="topic"),
    _made("500 x 2, half empty", "banking77", num_queries=500, num_candidates=2, fill=0.5),
    _made(
        "holes by topic",
        "hwu64",
        num_queries=4_000,
        num_candidates=10,
        fill=0.4,
        missing="by_topic",
        tasks="topic",
        num_topics=8,
    ),
    _made("holes by topic, untold", "banking77", num_queries=2_500, fill=0.5, missing="by_topic"),
    _made("holes by failure", "banking77", num_candidates=12, fill=0.5, missing="by_failure"),
    _made("holes by candidate", "hwu64", num_candidates=15, fill=0.45, missing="by_candidate", num_topics=7),
    _made("nearly equal, half empty", "banking77", num_candidates=6, abilities="equal", fill=0.5),
    _made("nearly equal pair", "hwu64", num_candidates=2, abilities="equal", num_queries=1_500, num_topics=5),
    _made("one dominated", "hwu64", num_candidates=4, abilities="dominated", num_topics=9),
    _made("one above all", "banking77", num_candidates=9, abilities="dominant", kind="graded"),
    _made("nothing to learn", "hwu64", num_candidates=12, signal=0.0, num_queries=1_500),
    _made("nothing to learn, topics told", "banking77", signal=0.0, tasks="topic", fill=0.5),
    _made("preferences", "banking77", kind="preference", num_candidates=24, num_queries=805),
    _made("preferences, half empty", "hwu64", kind="preference", fill=0.5, tasks="topic"),
    _made("dear is bad", "hwu64", prices="adverse", num_candidates=7, num_topics=8),
    _made("heavy-tailed costs", "banking77", prices="heavy", num_candidates=5),
    _made("one price", "hwu64", prices="flat", num_candidates=5, num_topics=6),
    _made("some prices", "banking77", prices="some", num_candidates=9, tasks="topic"),
    _made("no prices", "hwu64", prices="none", num_candidates=9, kind="graded"),
    _made("han, without spaces", "banking77", script="han", num_queries=2_500, tasks="topic"),
    _made("hangul, half empty", "hwu64", script="hangul", fill=0.5),
    _made("cyrillic, repeats", "banking77", script="cyrillic", repeats=0.5, num_queries=3_000),
    _made("articles", "wikitext", num_topics=15, num_queries=4_000, num_candidates=10),
    _made("functions, six labels", "bfcl", num_queries=1_000, num_test=1_000, num_topics=4, tasks="label"),
    _made("20,000 x 20", "hwu64", num_queries=20_000, num_candidates=20, fill=0.5, tasks="topic"),
    _real("alpacaeval1, 20 of 52", "alpacaeval1", num_candidates=20, fill=0.5),
    _real("alpacaeval2, 12 of 73", "alpacaeval2", num_candidates=12),
    _real("routerdc7, 4 of 7", "routerdc7", num_queries=3_000, num_candidates=4, num_test=6_000),
    _real("routerdc7, half empty", "routerdc7", fill=0.5, tasks="topic", num_test=6_000),
    _real("routerdc7, 500", "routerdc7", num_queries=500, num_test=6_000, tasks="topic"),
    _real("routellm_pair, 2,000", "routellm_pair", num_queries=2_000, num_test=6_000, tasks="topic"),
    _real("routellm_pair, half empty", "routellm_pair", num_queries=5_000, fill=0.5, num_test=6_000),
    _real("mot_cascade, 6 of 8", "mot_cascade", num_candidates=6, fill=0.5, num_test=3_000),
    _real("greenserv, 3", "greenserv_bandit", num_candidates=3, num_queries=1_000),
    _made("50,000 x 80, half empty", "hwu64", num_queries=50_000, num_candidates=80, fill=0.5, num_topics=25),
)
