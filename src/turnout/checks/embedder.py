"""This module lists and checks the promises of an embedder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from turnout.checks.compare import ROUNDING, frozen_copy, require_same_state
from turnout.checks.configured import (
    CONFIGURED_CHECKS,
    require_artifact_round_trip,
    require_not_fitted_error,
    require_state_round_trip,
)
from turnout.checks.fixtures import fresh_queries, hard_queries, long_query, small_queries
from turnout.checks.report import Check, bind, require, skip
from turnout.core import artifact
from turnout.core.contracts import Configured, Embedder
from turnout.core.errors import UnknownNameError
from turnout.core.query import Query
from turnout.core.rng import make_rng


def check_embedder(embedder: Embedder) -> Iterator[Check]:
    """Yield the checks of an embedder; it is cloned, never fitted itself."""
    return bind(
        embedder,
        (*CONFIGURED_CHECKS, *EMBEDDER_CHECKS),
        slow=SLOW_EMBEDDER_CHECKS,
        kind=Embedder,
        ground=(vectors_are_an_array,),
    )


def vectors_are_an_array(embedder: Embedder) -> None:
    """`fit` returns an embedder, and `embed` an array."""
    fitted = embedder.clone().fit(small_queries())
    is_one = isinstance(fitted, Embedder)
    require(is_one, embedder, "fit returned no embedder", allowed="the embedder itself", got=fitted)
    found: object = fitted.embed(fresh_queries())
    is_array = isinstance(found, np.ndarray)
    shown = type(found).__name__
    require(is_array, embedder, "embed returned no array", allowed="float32 of shape (Q, F)", got=shown)


def fit_returns_the_embedder(embedder: Embedder) -> None:
    """`fit` returns self, so that calls can be chained, and makes it fitted."""
    new = embedder.clone()
    require(new.fit(small_queries()) is new, embedder, "fit did not return the embedder itself")
    require(new.is_fitted, embedder, "it is not fitted after fit")


def embedding_before_fit_is_refused(embedder: Embedder) -> None:
    """An embedder that learns raises `NotFittedError` before it has."""
    new = embedder.clone()
    if new.is_fitted:
        skip(embedder, "it learns nothing")
    require_not_fitted_error(embedder, "embed", lambda: new.embed(fresh_queries()))


def vectors_are_float32_and_finite(embedder: Embedder) -> None:
    """`x_QF` is float32 of shape (Q, F) without NaN or infinity; F is the same for every batch."""
    new = embedder.clone().fit(small_queries())
    x_QF = new.embed(fresh_queries())
    require(x_QF.dtype == np.float32, embedder, "dtype of x_QF", allowed="float32", got=str(x_QF.dtype))
    is_right = x_QF.ndim == 2 and x_QF.shape[0] == len(fresh_queries()) and x_QF.shape[1] > 0
    require(is_right, embedder, "shape of x_QF", allowed=f"({len(fresh_queries())}, F)", got=x_QF.shape)
    require(np.isfinite(x_QF).all(), embedder, "x_QF holds NaN or infinity")
    none = new.embed([])
    require(
        none.shape == (0, x_QF.shape[1]), embedder, "no queries", allowed=(0, x_QF.shape[1]), got=none.shape
    )


def different_texts_get_different_vectors(embedder: Embedder) -> None:
    """An embedder that maps everything to one point tells a router nothing."""
    x_QF = embedder.clone().fit(small_queries()).embed(fresh_queries())
    spread = float(np.abs(x_QF - x_QF[0]).max())
    require(spread > 1e-6, embedder, "every text has the same vector", got=spread)


def a_batch_equals_one_by_one(embedder: Embedder) -> None:
    """A vector does not depend on what else is in the batch, nor on its order."""
    new = embedder.clone().fit(small_queries())
    queries = fresh_queries()
    batch_QF = new.embed(queries)
    single_QF = np.concatenate([new.embed([query]) for query in reversed(queries)])[::-1]
    _require_close(embedder, "a batch differs from its queries one by one", batch_QF, single_QF)


def an_id_is_not_a_feature(embedder: Embedder) -> None:
    """The same text under another id has the same vector."""
    new = embedder.clone().fit(small_queries())
    renamed = [replace(query, id=f"other-{query.id}") for query in fresh_queries()]
    _require_close(embedder, "another id gave another vector", new.embed(fresh_queries()), new.embed(renamed))


def embedding_does_not_learn(embedder: Embedder) -> None:
    """The state is the same to the bit before and after, and so is the second answer."""
    new = embedder.clone().fit(small_queries())
    before = frozen_copy(new.state())
    first = np.array(new.embed(fresh_queries()), copy=True)
    new.embed(small_queries(20, seed=5, start=500))
    require_same_state(embedder, "embedding learned something", before, new.state())
    require(np.array_equal(first, new.embed(fresh_queries())), embedder, "a second answer differs")


def the_same_seed_gives_the_same_result(embedder: Embedder) -> None:
    """Two clones fitted on the same texts agree to the bit."""
    first, second = (embedder.clone().fit(small_queries()).embed(fresh_queries()) for _ in range(2))
    require(np.array_equal(first, second), embedder, "two fits of one configuration differ")


def the_order_of_training_texts_does_not_matter(embedder: Embedder) -> None:
    """Distances between vectors are the same; axes may turn."""
    queries = small_queries()
    order = make_rng(2, "checks", "order").permutation(len(queries))
    grams = []
    for texts in (queries, [queries[index] for index in order]):
        x_QF = embedder.clone().fit(texts).embed(fresh_queries()).astype(np.float64)
        grams.append(x_QF @ x_QF.T)
    scale = max(1.0, float(np.abs(grams[0]).max()))
    what = "the order of the training texts changed the similarities"
    _require_close(embedder, what, grams[0] / scale, grams[1] / scale, tolerance=10 * ROUNDING)


def fitting_again_forgets(embedder: Embedder) -> None:
    """An embedder that saw other texts before embeds as one that did not."""
    again = embedder.clone().fit(small_queries(20, seed=9, start=300)).fit(small_queries())
    once = embedder.clone().fit(small_queries())
    is_same = np.array_equal(once.embed(fresh_queries()), again.embed(fresh_queries()))
    require(is_same, embedder, "fit did not forget the texts before")


def hard_texts_get_a_vector(embedder: Embedder) -> None:
    """No text, an empty one, half a surrogate pair, no letter at all: each has a finite vector."""
    new = embedder.clone().fit([*small_queries(), *hard_queries()])
    x_QF = new.embed(hard_queries())
    require(np.isfinite(x_QF).all(), embedder, "a hard text gave NaN or infinity")
    same_F = new.embed([Query(id="none", text=None), Query(id="empty", text="")])
    require(np.array_equal(same_F[0], same_F[1]), embedder, "no text and an empty text differ")


def few_texts_are_enough_to_fit(embedder: Embedder) -> None:
    """One text, or the same text many times, or none that has words."""
    queries = small_queries()
    same = [replace(query, text="the same words again") for query in queries]
    blank = [replace(query, text=None) for query in queries]
    for texts in (queries[:1], same, blank):
        x_QF = embedder.clone().fit(texts).embed([*fresh_queries(), *hard_queries()])
        require(np.isfinite(x_QF).all(), embedder, f"fitted on {len(texts)} poor texts, it gives NaN")


def its_state_survives_a_round_trip(embedder: Embedder) -> None:
    """What `state` returns is enough for `restore` to give the same vectors to the bit."""
    new = embedder.clone().fit(small_queries())
    require_state_round_trip(new, lambda thing: _require_same(new, thing))


def saving_and_loading_changes_nothing(embedder: Embedder) -> None:
    """The loaded artifact gives the same vectors to the bit."""
    new = embedder.clone().fit(small_queries())
    require_artifact_round_trip(new, lambda thing: _require_same(new, thing))


def a_text_of_a_megabyte_works(embedder: Embedder) -> None:
    """A very long prompt is embedded like any other."""
    x_QF = embedder.clone().fit(small_queries()).embed([long_query()])
    require(np.isfinite(x_QF).all(), embedder, "a text of a megabyte gave NaN or infinity")


def another_process_gives_the_same_vectors(embedder: Embedder) -> None:
    """Neither the hash seed nor the order of imports of a process shows in a vector."""
    new = embedder.clone().fit(small_queries())
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact.save(new, folder)
        except UnknownNameError as error:
            skip(embedder, f"another process cannot load it: {error}")
        subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, folder],
            check=True,
            capture_output=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": "4711",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )
        loaded_QF, refitted_QF = np.load(Path(folder) / "x.npy")
    here_QF = new.embed(fresh_queries())
    _require_close(embedder, "loaded in another process, it embeds differently", here_QF, loaded_QF)
    _require_close(embedder, "fitted in another process, it embeds differently", here_QF, refitted_QF)


_ELSEWHERE = """
import sys
import numpy
from turnout.checks.fixtures import fresh_queries, small_queries
from turnout.core import artifact
thing = artifact.load(sys.argv[1])
again = thing.clone().fit(small_queries())
numpy.save(sys.argv[1] + "/x.npy", [thing.embed(fresh_queries()), again.embed(fresh_queries())])
"""


def _require_same(embedder: Embedder, thing: Configured) -> None:
    require(isinstance(thing, Embedder), embedder, "what came back is no embedder", got=type(thing).__name__)
    if isinstance(thing, Embedder):
        is_same = np.array_equal(embedder.embed(fresh_queries()), thing.embed(fresh_queries()))
        require(is_same, embedder, "the vectors changed on the way")


def _require_close(
    embedder: Embedder, what: str, first: np.ndarray, second: np.ndarray, *, tolerance: float = ROUNDING
) -> None:
    require(first.shape == second.shape, embedder, what, allowed=first.shape, got=second.shape)
    gap = float(np.abs(first - second).max(initial=0.0))
    require(gap <= tolerance, embedder, what, allowed=f"a gap of at most {tolerance:g}", got=gap)


EMBEDDER_CHECKS: tuple[Callable[[Embedder], None], ...] = (
    fit_returns_the_embedder,
    embedding_before_fit_is_refused,
    vectors_are_float32_and_finite,
    different_texts_get_different_vectors,
    a_batch_equals_one_by_one,
    an_id_is_not_a_feature,
    embedding_does_not_learn,
    the_same_seed_gives_the_same_result,
    the_order_of_training_texts_does_not_matter,
    fitting_again_forgets,
    hard_texts_get_a_vector,
    few_texts_are_enough_to_fit,
    its_state_survives_a_round_trip,
    saving_and_loading_changes_nothing,
)
"""The promises of every embedder."""

SLOW_EMBEDDER_CHECKS: tuple[Callable[[Embedder], None], ...] = (
    a_text_of_a_megabyte_works,
    another_process_gives_the_same_vectors,
)
"""The promises of every embedder whose check takes long."""
