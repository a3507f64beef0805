"""Judgements and the rows of a collection, matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Collection, RowKey, Traits
from nudge_vdb.errors import BadJudgements, UnfitCollection
from nudge_vdb.given import require_judgements
from nudge_vdb.ground import Ground
from nudge_vdb.judgements import Judgements, binary
from nudge_vdb.mapped import picked
from nudge_vdb.merging import merged
from nudge_vdb.nudge import Ints
from nudge_vdb.options import Options
from nudge_vdb.pages import Pages

LOCATED_AT_ONCE = 1000


def refuse_other_widths(traits: Traits, given: Mapping[str, Judgements]) -> None:
    """Refuse what is no judgements, and judgements whose queries are not as wide as the collection's vectors."""
    require_judgements(**given)
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


def refuse_strangers(judgements: Judgements, keys: Mapping[str, RowKey]) -> None:
    """Refuse judgements most of whose rows are not among *keys*, before any row is read.

    Raises:
        BadJudgements: they are of another collection.
    """
    present(judgements, keys, dict.fromkeys(keys.values(), 0))


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
        vectors=picked(judgements.vectors, queries),
        query=query,
        rows=tuple(text for text, kept in zip(judgements.rows, pairs, strict=True) if kept),
        grades=judgements.grades[pairs],
        weights=judgements.weights[pairs],
    )


def some_queries(judged: Judged, queries: Ints) -> Judged:
    """Return the part of *judged* that belongs to *queries*."""
    pairs = np.isin(judged.judgements.query, queries)
    return Judged(_keep(judged.judgements, pairs), judged.places[pairs], judged.missing)


def sample(queries: int, most: int, seed: int) -> Ints:
    """Return the places of at most *most* queries, ascending, the same for the same *seed*."""
    if queries <= most:
        return np.arange(queries)
    return np.sort(np.random.default_rng(seed).choice(queries, most, replace=False))


def evaluated(train: Judged, options: Options) -> Ints:
    """Return the places of the training queries that are scored where no row is carried."""
    return sample(len(train.judgements), options.max_queries, options.seed)
