"""From judgements and pages to a version: which rows move, how far, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import release
from nudge_vdb.carrying import Examples, Unjudged, carried_table
from nudge_vdb.contract import Collection, RowKey, Traits, Vectors
from nudge_vdb.errors import BadJudgements, UnfitCollection
from nudge_vdb.exam import Exam, Field
from nudge_vdb.judgements import Judgements, binary
from nudge_vdb.keys import KeyTable
from nudge_vdb.lineage import Lineage
from nudge_vdb.merging import merged
from nudge_vdb.nudge import Floats, Ints, Method, Pulls, unit
from nudge_vdb.options import Options
from nudge_vdb.pages import Pages
from nudge_vdb.rivals import Part, best_rows
from nudge_vdb.scoring import Table, in_order, score_table
from nudge_vdb.selection import FEWEST_QUERIES

LOCATED_AT_ONCE = 1000
SETTLED_AT_ONCE = 4096


@dataclass(frozen=True)
class Ground:
    """The rows as planning sees them: everything of ours at its base, everything else where it is."""

    pages: Pages
    """With base vectors in place of the tuned ones that are live."""
    place: Mapping[RowKey, int]
    """The place in the pages of every row that is judged."""
    moved: Ints
    """Places of the rows that were ever moved, ascending."""
    live: Vectors
    """(len(moved), width): what those rows hold now."""
    re_embedded: list[str]
    """Ids of rows of the live version that hold a vector of their owner's now."""
    text_of: Callable[[RowKey], str]

    def texts(self, places: Ints) -> list[str]:
        """Return the ids of the rows at *places*."""
        return [self.text_of(key) for key in self.pages.keys.at(places)]

    def by_id(self, *places: Ints) -> list[Floats]:
        """Return, for arrays of places, numbers in 0 … 1 that ascend with the ids of the rows there."""
        named = np.unique(np.concatenate([each.reshape(-1) for each in places]))
        texts = self.texts(named[named >= 0])
        ranks = np.zeros(len(named))
        ranks[len(named) - len(texts) :][sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        return [ranks[np.searchsorted(named, each)] / max(1, len(texts)) for each in places]

    def live_parts(self) -> Iterator[Part]:
        """Stream all rows as they are now."""
        for part in self.pages.chunks():
            vectors = np.array(self.pages.vectors[part])
            first, last = np.searchsorted(self.moved, [part.start, part.stop])
            vectors[self.moved[first:last] - part.start] = self.live[first:last]
            yield np.arange(part.start, part.stop), vectors

    def parts_without(self, places: Ints) -> Iterator[Part]:
        """Stream the rows at their base, except those at *places* and those that cannot be scored."""
        left_out = np.union1d(places, self.pages.unfit)
        for part in self.pages.chunks():
            first, last = np.searchsorted(left_out, [part.start, part.stop])
            kept = np.delete(np.arange(part.start, part.stop), left_out[first:last] - part.start)
            yield kept, self.pages.vectors[kept]


def refuse_other_widths(traits: Traits, given: Mapping[str, Judgements]) -> None:
    """Refuse judgements whose queries are not as wide as the collection's vectors."""
    for name, judgements in given.items():
        if judgements.vectors.shape[1] != traits.width:
            raise BadJudgements(
                f"the query vectors of the {name} have {judgements.vectors.shape[1]} components and "
                f"{traits.identity} holds vectors of {traits.width}; embed the queries with the collection's model"
            )


def locate(collection: Collection, texts: Sequence[str]) -> dict[str, RowKey]:
    """Return the keys of those of *texts* that are ids of rows, by the text given and by the engine's spelling."""
    found: dict[str, RowKey] = {}
    for first in range(0, len(texts), LOCATED_AT_ONCE):
        some = texts[first : first + LOCATED_AT_ONCE]
        found |= {text: key for text, key in zip(some, collection.locate(some), strict=True) if key is not None}
    return found | {collection.text_of(key): key for key in found.values()}


def places_of(pages: Pages, keys: Iterable[RowKey]) -> dict[RowKey, int]:
    """Return the place in *pages* of each of *keys* that is there.

    Raises:
        UnfitCollection: one is there twice.
    """
    places = places_among(pages, KeyTable.of(keys))
    return dict(zip(pages.keys.at(places), places.tolist(), strict=True))


def places_among(pages: Pages, keys: KeyTable) -> Ints:
    """Return the places in *pages* of those of *keys* that are there, ascending.

    Raises:
        UnfitCollection: one is there twice.
    """
    found, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in pages.keys.parts():
        at = keys.find(pages.keys.select(range(part.start, part.stop)))
        found.append(at[at >= 0])
        places.append(part.start + np.flatnonzero(at >= 0))
    _, counts = np.unique(np.concatenate(found), return_counts=True)
    if (counts > 1).any():
        raise UnfitCollection(f"{(counts > 1).sum()} rows were met twice in one scan; remove the doubles first")
    return np.concatenate(places)


def settle(collection: Collection, pages: Pages, lineage: Lineage, judged: Sequence[RowKey], version: int) -> Ground:
    """Put every row that is ours back to its base, in the pages only, so that no plan is built on an earlier one.

    *version* is the one that is live.
    """
    place, moved = places_of(pages, set(judged)), places_among(pages, lineage.keys())
    live, strangers = pages.scratch("live", len(moved)), []
    for first in range(0, len(moved), SETTLED_AT_ONCE):
        some = slice(first, min(first + SETTLED_AT_ONCE, len(moved)))
        keys, held = pages.keys.at(moved[some]), pages.vectors[moved[some]]
        base, known = lineage.bases(keys, held)
        live[some] = held
        pages.vectors[moved[some][known]] = base[known]
        strange = ~known & lineage.holds(version, keys)
        strangers += [collection.text_of(key) for key, theirs in zip(keys, strange, strict=True) if theirs]
    return Ground(pages, place, moved, live, strangers, collection.text_of)


@dataclass(frozen=True)
class Judged:
    """Judgements matched with the rows of a collection."""

    judgements: Judgements
    """Merged; queries and rows that cannot be used left out."""
    places: Ints
    """(p,): the place in the pages of each pair's row."""
    missing: list[str]
    """Judged ids that name no row with a vector."""


def spelled(judgements: Judgements, keys: Mapping[str, RowKey], collection: Collection) -> Judgements:
    """Return *judgements* with the ids of rows that exist spelled as the engine spells them."""
    own = {text: collection.text_of(key) for text, key in keys.items()}
    return replace(judgements, rows=tuple(own.get(text, text) for text in judgements.rows))


def match(judgements: Judgements, keys: Mapping[str, RowKey], ground: Ground, options: Options) -> Judged:
    """Match *judgements* with rows, equal queries made one.

    Raises:
        BadJudgements: more than half of the judged rows are missing.
        UnfitCollection: a judged row holds NaN, infinity or the zero vector.
    """
    judged = usable(judgements, keys, ground.place, options)
    _refuse_unfit_rows(judged, ground.pages)
    return judged


def usable(judgements: Judgements, keys: Mapping[str, RowKey], place: Mapping[RowKey, int], options: Options) -> Judged:
    """Return the judgements that a plan works with: equal queries made one, and only the rows that have a *place*."""
    return present(merged(judgements if options.grades else binary(judgements)), keys, place)


def present(judgements: Judgements, keys: Mapping[str, RowKey], place: Mapping[RowKey, int]) -> Judged:
    """Return the part of *judgements* whose rows are there, and the ids of the others.

    Raises:
        BadJudgements: more than half of the judged rows are missing.
    """
    places = np.array([place.get(keys.get(text, b""), -1) for text in judgements.rows], np.int64)
    missing = sorted({text for text, at in zip(judgements.rows, places, strict=True) if at < 0})
    named = len(set(judgements.rows))
    if 2 * len(missing) > named:
        raise BadJudgements(
            f"{len(missing)} of {named} judged rows are not in the collection, such as {missing[0]!r}; "
            "do the judgements belong to this collection, and do they use its row ids?"
        )
    return Judged(_keep(judgements, places >= 0), places[places >= 0], missing)


def _refuse_unfit_rows(judged: Judged, pages: Pages) -> None:
    places = np.unique(judged.places)
    zero = [np.empty(0, np.int64)]
    for first in range(0, len(places), LOCATED_AT_ONCE):
        some = places[first : first + LOCATED_AT_ONCE]
        zero.append(some[~pages.at(some).any(axis=1)])
    for pair in np.flatnonzero(np.isin(judged.places, np.concatenate([*zero, pages.unfit])))[:1]:
        fault = "holds NaN or infinity" if judged.places[pair] in pages.unfit else "is zero"
        text = judged.judgements.rows[pair]
        raise UnfitCollection(f"row {text!r} is judged but its vector {fault}; embed it again")


def _keep(judgements: Judgements, pairs: NDArray[np.bool_]) -> Judgements:
    """Return *judgements* with only these *pairs*, and only the queries that still have one."""
    if pairs.all():
        return judgements
    queries, query = np.unique(judgements.query[pairs], return_inverse=True)
    return replace(
        judgements,
        query_ids=tuple(judgements.query_ids[place] for place in queries),
        vectors=judgements.vectors[queries],
        query=query,
        rows=tuple(text for text, kept in zip(judgements.rows, pairs, strict=True) if kept),
        grades=judgements.grades[pairs],
        weights=judgements.weights[pairs],
    )


@dataclass(frozen=True)
class Course:
    """Everything that follows from the judgements, before a step is chosen."""

    wanted: Ints
    """(m,): places of the rows that a judgement names, ascending."""
    pulls: Pulls
    ground: Ground
    options: Options
    traits: Traits

    def base(self, part: slice) -> Vectors:
        """Return the raw base vectors of a slice of the wanted rows."""
        return self.ground.pages.at(self.wanted[part])

    def carried_table(self, exam: Exam, steps: Floats) -> Table:
        """Return the scores of *exam* at each of *steps* with every carry; every wanted row must be judged."""
        pages, order, nobody = self.ground.pages, np.zeros(len(self.wanted)), np.empty((len(exam.units), 0))
        field = Field(
            Method(self.options.method), self.traits.metric, self.pulls, self.base, order, nobody, pages.budget
        )
        unjudged = Unjudged(self.ground.parts_without(self.wanted), pages.at)
        return carried_table(field, exam, self.options.measure, steps, unjudged)

    def examples(self) -> Examples:
        """Return what the judged rows teach of the directions that rows move in."""
        nobody = np.empty((0, 0))
        method = Method(self.options.method)
        return Examples(
            Field(method, self.traits.metric, self.pulls, self.base, np.empty(0), nobody, self.ground.pages.budget)
        )

    def table(self, exam: Exam) -> Table:
        """Return the scores of *exam* at every step."""
        rule, parts, budget = self.options.measure, self.ground.parts_without(self.wanted), self.ground.pages.budget
        best = best_rows(parts, exam.units, exam.lengths, rule.k, self.traits.metric, budget)
        order, rivals_order = self.ground.by_id(self.wanted, best.places)
        rivals = in_order(best.scores, rivals_order)
        field = Field(Method(self.options.method), self.traits.metric, self.pulls, self.base, order, rivals, budget)
        return score_table(field, exam, rule, self.options.steps)


def set_course(train: Judged, others: Sequence[Judged], ground: Ground, options: Options, traits: Traits) -> Course:
    """Work out who pulls on whom; rows of *others* that no training query wants are wanted but not pulled."""
    wanted = np.unique(np.concatenate([judged.places for judged in (train, *others)]))
    order = np.argsort(train.places, kind="stable")
    units = _kept(ground.pages, train.judgements.vectors)
    pulls = Pulls(
        units,
        train.judgements.query[order],
        np.searchsorted(wanted, train.places[order]),
        train.judgements.weights[order],
        len(wanted),
    )
    return Course(wanted, pulls, ground, options, traits)


def _kept(pages: Pages, queries: Vectors) -> Vectors:
    """Return *queries* scaled to length 1, mapped from a file beside *pages*: there may be more than rows."""
    units = pages.scratch("queries", len(queries))
    for first in range(0, len(queries), SETTLED_AT_ONCE):
        some = slice(first, first + SETTLED_AT_ONCE)
        units[some] = unit(queries[some])[0]
        release(queries)
        release(units)
    return units


def some_queries(judged: Judged, queries: Ints) -> Judged:
    """Return the part of *judged* that belongs to *queries*."""
    pairs = np.isin(judged.judgements.query, queries)
    return Judged(_keep(judged.judgements, pairs), judged.places[pairs], judged.missing)


def sit_exam(course: Course, judged: Judged, queries: Ints, pull: float) -> Exam:
    """Return the exam of some *queries* of *judged*; *pull* is 1 if they pull on the rows that answer them, else 0."""
    taken = some_queries(judged, queries)
    units, lengths = unit(taken.judgements.vectors)
    rows = np.searchsorted(course.wanted, taken.places)
    left_out = pull * taken.judgements.weights
    return Exam(units, lengths, taken.judgements.query, rows, taken.judgements.grades, left_out)


def sample(queries: int, most: int, seed: int) -> Ints:
    """Return the places of at most *most* queries, ascending, the same for the same *seed*."""
    if queries <= most:
        return np.arange(queries)
    return np.sort(np.random.default_rng(seed).choice(queries, most, replace=False))


def evaluated(train: Judged, options: Options) -> Ints:
    """Return the places of the training queries that are scored where no row is carried."""
    return sample(len(train.judgements), options.max_queries, options.seed)


def unlike(course: Course, exam: Exam, seed: int) -> str | None:
    """Return a warning if judged pairs are no more similar than random ones, None if they are, as they should be."""
    some = sample(len(exam.query), LOCATED_AT_ONCE, seed)
    if len(some) < FEWEST_QUERIES:
        return None
    drawn = _drawn(course, len(some), seed)
    if drawn is None:
        return None
    judged = _cosines(course, exam, some, course.wanted[exam.row[some]])
    chance = _cosines(course, exam, some, drawn)
    noise: Floats = np.sqrt((judged.var() + chance.var()) / len(some))
    if judged.mean() > chance.mean() + 2 * noise:
        return None
    return (
        f"judged pairs are no more similar ({judged.mean():.3f}) than random pairs ({chance.mean():.3f}): were the "
        "queries embedded with the model of this collection?"
    )


def _drawn(course: Course, count: int, seed: int) -> Ints | None:
    """Return the places of random rows, None where there are too few: of gathered ones judged, others being near."""
    pages, rng = course.ground.pages, np.random.default_rng(seed)
    fit = len(pages) - len(pages.unfit) if pages.whole else len(course.wanted)
    if fit < FEWEST_QUERIES:
        return None
    drawn = rng.integers(0, fit, count)
    if not pages.whole:
        return np.asarray(course.wanted[drawn])
    return drawn + np.searchsorted(pages.unfit - np.arange(len(pages.unfit)), drawn, side="right")


def _cosines(course: Course, exam: Exam, pairs: Ints, places: Ints) -> Floats:
    """Return the cosines of the queries of *pairs* with the rows at *places*."""
    rows, _ = unit(course.ground.pages.at(places))
    return np.asarray(np.einsum("ij,ij->i", exam.units[exam.query[pairs]], rows, dtype=np.float64))
