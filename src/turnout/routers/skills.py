"""This module profiles candidates by skill: right minus wrong under every skill that a query asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, final

import numpy as np

from turnout.core.candidate import Candidate
from turnout.core.contracts import Embedder, Router, State
from turnout.core.estimate import Estimate
from turnout.core.outcomes import Floats, Ints, OutcomeTable
from turnout.core.query import Query
from turnout.core.validation import check_count, check_kind, check_number
from turnout.routers.evidence import LEAST_BETWEEN, floor_square
from turnout.routers.fingerprints import unit_rows
from turnout.routers.neighbours import Array
from turnout.routers.pool import Pool, pool_from, read_newcomer, read_pool
from turnout.routers.reader import embedder_parts, fitted_embedder, restored_embedder
from turnout.routers.tag_scores import shares_of, summed, vocabulary, widened, words_of
from turnout.routers.targets import seen_candidates

TAG = "skills"
"""The tag of a query that names its skills, with commas between them, where somebody has written them."""
_COMMON = 0.2
"""A word in more than this share of the texts is no skill."""
_SHARPNESS = 2.0
"""Power of the overall strength: one over the temperature 0.5 of the code."""


@final
class SkillsRouter(Router):
    """Count right minus wrong per skill and candidate, and add the counts of the skills that a query needs.

    A query's skills are those of its tag `skills`, which a language model may have written, or else the
    most telling words of its text. A named skill that no profile has stands for the known one that is most
    like it. Nothing is trained, and a newcomer needs its own counts alone.

    Source
    ------
    S173: J. Chen et al., "Symbolic Mixture-of-Experts", arXiv 2503.05641 (abstract), and its code,
    github.com/dinobby/Symbolic-MoE at d6c2e0d (`create_profile`, `find_similar_keywords`,
    `recruit_agents`): keywords, counts, the nearest known keyword, and the weight
    `max(counts of the skills, 0) * strength` with which an expert is recruited (`suitability`).

    Differs
    -------
    Without a tag, words stand in for the keywords of a language model. Counts are graded: a quality q adds
    2 q - 1. A quality is read off the same rows (right ones over all, drawn toward the candidate's mean by
    `prior`), because an estimate holds qualities. The team is recruited by `turnout.sequential.Recruit`.

    Parameters
    ----------
    embedder:
        Turns skills into vectors, to find the known one that is most like another; None is `TextEmbedder()`.
        A fitted one is shared as it is.
    num_skills:
        At most so many words of a text are its skills, the rarest ones (the code asks for 2 to 5 keywords).
    least:
        A word stands in at least so many training texts to be a skill.
    prior:
        Rows by which a candidate's quality under its skills is drawn toward its mean, above 0.
    size:
        At most so many skills, the most frequent ones.

    Units
    -----
    Spread is the deviation of the candidate's quality over the root of the rows that its skills stand for,
    and wide where it has few rows under them beside its share of all (`tag_scores`).

    Cost
    ----
    O(s M) per query of s skills; a skill that nobody has adds the look-up of the nearest, O(S F).
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        num_skills: int = 5,
        least: int = 3,
        prior: float = 10.0,
        size: int = 5_000,
    ) -> None:
        if embedder is not None:
            check_kind("SkillsRouter.embedder", embedder, Embedder)
        self.embedder = embedder
        self.num_skills = check_count("SkillsRouter.num_skills", num_skills)
        self.least = check_count("SkillsRouter.least", least)
        self.prior = check_number("SkillsRouter.prior", prior, low=0.0, allow_low=False)
        self.size = check_count("SkillsRouter.size", size)
        self.embedder_: Embedder | None = None
        self.pool_: Pool | None = None
        self.number_: dict[str, int] = {}
        self.count_S: Ints = np.zeros(0, np.int64)
        self.vector_SF: Array = np.zeros((0, 0), np.float32)
        self.right_SM: Floats = np.zeros((0, 0))
        self.rows_SM: Floats = np.zeros((0, 0))
        self.share_S: Floats = np.zeros(0)

    @property
    def is_fitted(self) -> bool:
        """Whether candidates have profiles."""
        return self.pool_ is not None

    def fit(self, table: OutcomeTable) -> Self:
        """Find the skills and count every candidate under them; returns self."""
        queries, targets, pool = read_pool(table)
        seen_candidates(targets)
        self.embedder_ = fitted_embedder(self.embedder, queries)
        self._find_skills(queries)
        self.right_SM, self.rows_SM = self._profile(queries, targets.quality_QM)
        self.share_S = shares_of(_pairs(self._needs(queries))[1], len(self.number_), len(queries))
        self.pool_ = pool
        return self

    def skills(self, queries: Sequence[Query]) -> list[list[str]]:
        """Return the known skills that each query needs, in alphabetical order."""
        self.require_fitted("skills")
        names = list(self.number_)
        return [sorted(names[skill] for skill in found) for found in self._needs(queries)]

    def profiles(self) -> Floats:
        """Return right minus wrong of every skill and candidate, shape (S, M)."""
        self._learned("profiles")
        profile_SM: Floats = 2.0 * self.right_SM - self.rows_SM
        return profile_SM

    def suitability(self, queries: Sequence[Query]) -> Floats:
        """Return the weights with which candidates are recruited, shape (Q, M); NaN for one never observed.

        The counts of the query's skills times the strength; where nobody's are above 0, they are lifted
        until the least is 1. A query without a known skill leaves the strength alone.
        """
        pool = self._learned("suitability")
        row_P, skill_P = _pairs(self._needs(queries))
        profile_SM = self.profiles()
        count_QM = summed(row_P, profile_SM[skill_P], len(queries))
        has_skill_Q1 = (np.bincount(row_P, minlength=len(queries)) > 0)[:, None]
        known_M = pool.known_M
        most_Q1 = np.where(known_M, count_QM, -np.inf).max(axis=1, keepdims=True)
        least_Q1 = np.where(known_M, count_QM, np.inf).min(axis=1, keepdims=True)
        weight_QM = np.where(most_Q1 > 0.0, np.maximum(count_QM, 0.0), count_QM - least_Q1 + 1.0)
        weight_QM = np.where(has_skill_Q1, weight_QM, 1.0) * _strength(profile_SM.sum(axis=0), known_M)
        return np.where(known_M, weight_QM, np.nan)

    def estimate(self, queries: Sequence[Query]) -> Estimate:
        """Return the share of right answers over the rows of the query's skills."""
        pool = self._learned("estimate")
        row_P, skill_P = _pairs(self._needs(queries))
        right_QM = summed(row_P, self.right_SM[skill_P], len(queries))
        rows_QM = summed(row_P, self.rows_SM[skill_P], len(queries))
        quality_QM = (right_QM + self.prior * pool.means.quality) / (rows_QM + self.prior)
        square_QM = floor_square(pool.means.variance, pool.means.num, rows_QM, LEAST_BETWEEN)
        spread_QM = widened(
            square_QM, (row_P, skill_P), self.rows_SM, self.share_S, pool.means.num, self.prior
        )
        return pool.estimate(queries, quality_QM, spread_QM)

    def add_candidate(self, candidate: Candidate, table: OutcomeTable) -> Self:
        """Count one more candidate under the known skills, by its probe rows; returns self."""
        pool = self._learned("add_candidate")
        queries, targets, added = read_newcomer(table, candidate, pool)
        right_SM, rows_SM = self._profile(queries, targets.quality_QM)
        self.right_SM = np.concatenate([self.right_SM, right_SM], axis=1)
        self.rows_SM = np.concatenate([self.rows_SM, rows_SM], axis=1)
        self.pool_ = pool.with_added(added)
        return self

    def state(self) -> State:
        """Return skills and profiles."""
        pool = self._learned("state")
        assert self.embedder_ is not None
        own: dict[str, np.ndarray] = {"right": self.right_SM, "rows": self.rows_SM, "count": self.count_S}
        more: dict[str, np.ndarray] = {"share": self.share_S, "vector": self.vector_SF.astype(np.float16)}
        return State(
            arrays={**pool.arrays(), **own, **more},
            values={**pool.values(), "skills": list(self.number_)},
            parts=embedder_parts(self.embedder, self.embedder_),
        )

    def restore(self, state: State) -> None:
        """Take over skills and profiles."""
        self.embedder_ = restored_embedder(self.embedder, state.parts)
        self.pool_ = pool_from(state.arrays, state.values)
        skills = state.values["skills"]
        assert isinstance(skills, list)
        self.number_ = {skill: number for number, skill in enumerate(skills)}
        self.right_SM, self.rows_SM = state.arrays["right"], state.arrays["rows"]
        self.share_S = state.arrays.get("share", np.zeros(len(skills)))  # older artifacts have none
        self.count_S, self.vector_SF = state.arrays["count"], state.arrays["vector"].astype(np.float32)

    def _find_skills(self, queries: Sequence[Query]) -> None:
        assert self.embedder_ is not None
        named = {skill for query in queries for skill in _named(query)}
        texts = [query.words for query in queries if not _named(query)]
        words = vocabulary(texts, least=self.least, most_share=_COMMON, size=self.size)
        self.number_ = {skill: number for number, skill in enumerate(sorted(named | set(words)))}
        known = [[word for word in words_of(text) if word in words] for text in texts]
        numbers = [self.number_[word] for found in known for word in found]
        self.count_S = np.bincount(np.array(numbers, np.int64), minlength=len(self.number_))
        vector_SF = np.asarray(self.embedder_.embed(_as_queries(list(self.number_))), np.float32)
        # As an artifact holds them, so that what is loaded answers alike.
        self.vector_SF = unit_rows(vector_SF).astype(np.float16).astype(np.float32)

    def _needs(self, queries: Sequence[Query]) -> list[list[int]]:
        """Return the numbers of the skills of each query."""
        return [self._named_skills(query) or self._word_skills(query.words) for query in queries]

    def _named_skills(self, query: Query) -> list[int]:
        found: set[int] = set()
        for skill in _named(query):
            number = self.number_.get(skill, -1)
            found.add(self._nearest(skill) if number < 0 else number)
        return sorted(found - {-1})

    def _word_skills(self, text: str) -> list[int]:
        known = [self.number_[word] for word in words_of(text) if word in self.number_]
        return sorted(known, key=lambda skill: (self.count_S[skill], skill))[: self.num_skills]

    def _nearest(self, skill: str) -> int:
        """Return the number of the known skill most like this one, -1 where none is like it."""
        assert self.embedder_ is not None
        vector_F = np.asarray(self.embedder_.embed(_as_queries([skill])), np.float32)[0]
        if not vector_F.any() or not len(self.vector_SF):
            return -1
        likeness_S = np.round((self.vector_SF @ vector_F).astype(np.float64), 5)
        return int(likeness_S.argmax()) if likeness_S.max() > 0.0 else -1

    def _profile(self, queries: Sequence[Query], quality_NM: Floats) -> tuple[Floats, Floats]:
        """Return the sums of quality and the observed rows of every skill, (S, M)."""
        row_P, skill_P = _pairs(self._needs(queries))
        known_NM = np.isfinite(quality_NM).astype(np.float64)
        right_SM = summed(skill_P, np.nan_to_num(quality_NM)[row_P], len(self.number_))
        return right_SM, summed(skill_P, known_NM[row_P], len(self.number_))

    def _learned(self, move: str) -> Pool:
        self.require_fitted(move)
        assert self.pool_ is not None
        return self.pool_


def _named(query: Query) -> list[str]:
    """Return the skills that the query's tag names."""
    return [
        skill for part in query.tags.get(TAG, "").split(",") if (skill := " ".join(part.casefold().split()))
    ]


def _as_queries(texts: Sequence[str]) -> list[Query]:
    return [Query(id=str(number), text=text) for number, text in enumerate(texts)]


def _pairs(needs: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Return pairs (row, skill), row by row."""
    row_P = np.repeat(np.arange(len(needs)), [len(found) for found in needs])
    return row_P, np.array([skill for found in needs for skill in found], np.int64)


def _strength(total_M: Floats, known_M: np.ndarray) -> Floats:
    """Return the overall strength of each candidate: its counts, lifted above 0, to a power, of sum 1."""
    least = float(total_M[known_M].min(initial=np.inf))
    # The code lifts where the least is below 0; a total of exactly 0 would never be recruited again.
    lifted_M = total_M - least + 1.0 if least <= 0.0 else total_M
    power_M: Floats = np.where(known_M, np.maximum(lifted_M, 0.0) ** _SHARPNESS, 0.0)
    return power_M / max(float(power_M.sum()), 1e-300)
