"""A run: page out, compute, snapshot, write back, verify, report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Unpack

from nudge_vdb.aftermath import advice, finished
from nudge_vdb.contract import Collection, agree
from nudge_vdb.errors import BadOption, Locked, NotProven, StateConflict, UnfitCollection
from nudge_vdb.given import taking_addresses, told
from nudge_vdb.ground import settle
from nudge_vdb.judgements import Judgements
from nudge_vdb.lineage import Lineage
from nudge_vdb.matching import locate, refuse_other_widths, refuse_strangers, spelled
from nudge_vdb.notes import own_note, require_own, withdraw
from nudge_vdb.options import Choices, Options
from nudge_vdb.pace import Pace, require_rate
from nudge_vdb.pages import forget, forget_unless_interrupted
from nudge_vdb.phases import Phases
from nudge_vdb.price import price
from nudge_vdb.proposal import Proposal, propose
from nudge_vdb.report import Report, identity_of, move_report, now, pace_report, plan_report
from nudge_vdb.retry import Patient
from nudge_vdb.snapshot import Content, Version
from nudge_vdb.standing import Folder, known_state, open_state, state_warnings, steady
from nudge_vdb.state import State
from nudge_vdb.survey import Surveyor
from nudge_vdb.verify import PLAN_ANEW, of_another_model, refuse_another_model, unread_is_unfinished, verify_live
from nudge_vdb.writeback import move_to

WAITING = ("prepared", "unproven")
COMPARED_AT_ONCE = 4096


@dataclass(frozen=True)
class Plan:
    """A version that is ready to be applied, with the figures that speak for it."""

    collection: Collection
    state: State
    version: Version
    report: Report = field(repr=False)
    phases: Phases = field(repr=False)

    @property
    def proven(self) -> bool:
        """Whether the gain is proven; an unproven plan is applied only by force."""
        return bool(self.report["proven"])

    @property
    def gain(self) -> float:
        """The expected gain of the metric over the base."""
        return float(self.report["gain"])

    @property
    def step(self) -> float:
        """The step γ."""
        return float(self.report["step"])


@dataclass(frozen=True)
class Applied:
    """What became of a move to a version."""

    report: Report
    written: int
    """Rows that hold their new vector."""
    missing: int
    """Rows that are gone; none was created."""
    changed: int
    """Rows that hold a vector of their owner's, left alone."""
    skipped: Mapping[str, list[str]] = field(default_factory=dict)
    """Row ids by the outcome that kept them from being written."""


@taking_addresses
def plan(
    collection: Collection,
    judgements: Judgements,
    *,
    state: Folder = None,
    validation: Judgements | None = None,
    test: Judgements | None = None,
    throttle: float | None = None,
    phases: Phases | None = None,
    **choices: Unpack[Choices],
) -> Plan:
    """Work out a version and keep it in the state, writing nothing to the database.

    *validation* and *test* do not train; they are scored and reported apart. *choices* are the fields of
    :class:`~nudge_vdb.options.Options`, such as ``metric="recall@10"``. A plan that changes nothing returns the
    version that is live. The price in its report is that of applying it with *throttle*.

    Raises:
        BadInput: the judgements, the options or the collection cannot be used; the message says what to do.
        Locked: another run holds the state.
        EngineError: the engine cannot be reached, or refuses.
    """
    options, phases = Options(**choices), phases or Phases()
    apart = {name: given for name, given in (("validation", validation), ("test", test)) if given is not None}
    options.fit(collection.traits)
    require_rate(throttle)
    refuse_other_widths(collection.traits, {"judgements": judgements, **apart})
    home = open_state(collection, state)
    with home.locked():
        require_own(Patient(collection), home)
        try:
            reader = Patient(collection, after_reading=home.require_hold)  # what it reads goes into the state's folder
            proposal = _compute(reader, home, judgements, apart, options, phases)
            proposal.facts.update(price(Patient(collection), home, proposal.content, throttle))
            told_before = advice(Patient(collection), proposal.facts["rows_to_write"])
            proposal.facts["advice"] = told_before["advice"]
            proposal.facts["warnings"] += told_before["warnings"]
            with phases("snapshot"):
                version = _kept(home, proposal, judgements, collection)
        finally:
            with suppress(Locked):  # where another run has taken over, they are that one's
                home.require_hold()
                forget_unless_interrupted(home.pages)
    return as_plan(collection, home, version, phases, proposal.facts)


@taking_addresses
@steady
def prepared(
    collection: Collection, number: int | None = None, *, state: Folder = None, phases: Phases | None = None
) -> Plan:
    """Return version *number* as a plan; without a number, an interrupted one, or the newest that was never applied.

    Raises:
        BadOption: there is no such version.
    """
    home, phases = open_state(collection, state), phases or Phases()
    if number is None:
        number = home.journal.unfinished or None
    if number is not None:
        return as_plan(collection, home, home.version(number), phases)
    versions = {status: [each for each in home.versions() if home.status_of(each) == status] for status in WAITING}
    waiting = versions["prepared"] or versions["unproven"]
    if not waiting:
        raise BadOption(
            f"{home.traits.identity} has no prepared version; make one with 'nudge-vdb plan ADDRESS --judgements PATH'"
        )
    return as_plan(collection, home, waiting[-1], phases)


def apply(plan: Plan, *, force: bool = False, throttle: float | None = None) -> Applied:
    """Write the vectors of *plan* to the database, read them back, and report.

    No more than *throttle* rows are written, and afterwards read back, in a second.

    Raises:
        BadOption: *throttle* is no number of rows per second, or *plan* no plan.
        NotProven: the gain is not proven, and *force* was not given.
        StateConflict: another version has gone live since the plan was made; or most of its rows were embedded again by
            another model, and *force* was not given.
    """
    if not isinstance(plan, Plan):
        raise BadOption(
            f"{told(plan)} was given; expected a plan, such as nudge_vdb.plan(COLLECTION, JUDGEMENTS) or "
            "nudge_vdb.prepared(COLLECTION, NUMBER) returns"
        )
    require_rate(throttle)
    home, number = plan.state, plan.version.number
    with home.locked():
        require_own(Patient(plan.collection), home)
        _refuse_unproven(plan, force=force)
        _refuse_orphan(plan)
        if not force and home.journal.unfinished != number:  # what was begun must be finished or undone
            refuse_another_model(number, Patient(plan.collection), home, throttle)
        return _move(plan.collection, home, number, plan.report, plan.phases, throttle)


@taking_addresses
def rollback(
    collection: Collection,
    *,
    to: int,
    state: Folder = None,
    throttle: float | None = None,
    phases: Phases | None = None,
) -> Applied:
    """Bring the collection to version *to*, 0 being the base: any version that was applied once, older or newer.

    No more than *throttle* rows are written, and afterwards read back, in a second.

    Raises:
        BadOption: there is no such version, or *throttle* is no number of rows per second.
        StateConflict: it was never applied.
    """
    home = known_state(collection, state)
    with home.locked():
        require_own(Patient(collection), home)
        return _move(collection, home, to, _known(home, to), phases or Phases(), throttle)


@taking_addresses
def resume(
    collection: Collection, *, state: Folder = None, throttle: float | None = None, phases: Phases | None = None
) -> Applied | None:
    """Finish the move that was interrupted, forth or back; return None where none was.

    No more than *throttle* rows are written, and afterwards read back, in a second.

    Raises:
        BadOption: *throttle* is no number of rows per second.
    """
    require_rate(throttle)
    home = known_state(collection, state)
    with home.locked():
        patient = Patient(collection)
        require_own(patient, home)
        to = home.journal.unfinished
        if to is None and home.journal.live == 0 and own_note(patient, home.traits):
            to = 0  # the run died before it took back the note
        return None if to is None else _move(collection, home, to, _known(home, to), phases or Phases(), throttle)


def _known(home: State, to: int) -> Report:
    """Return what is known of version *to*, which some row may hold already.

    Raises:
        BadOption: there is no such version.
        StateConflict: it was never applied.
    """
    if to == 0:
        return {"version": to, "collection": home.traits.identity}
    version = home.version(to)
    if to not in home.journal.begun():
        raise StateConflict(f"version {to} was never applied; 'nudge-vdb apply ADDRESS {to}' would do that")
    return plan_report(version.facts(), "applied", {})


def _compute(
    collection: Collection,
    home: State,
    judgements: Judgements,
    apart: Mapping[str, Judgements],
    options: Options,
    phases: Phases,
) -> Proposal:
    named = dict.fromkeys(text for given in (judgements, *apart.values()) for text in given.rows)
    with phases("locate"):
        keys = locate(collection, list(named))
    train = spelled(judgements, keys, collection)
    held_out = {name: spelled(given, keys, collection) for name, given in apart.items()}
    for given in (train, *held_out.values()) if collection.count() else ():  # else that is what is wrong
        refuse_strangers(given, keys)
    lineage = Lineage(home)
    survey = Surveyor(collection, home.pages, lineage, keys, options, phases).survey(train, held_out)
    pages = survey.pages
    if not len(pages):
        raise UnfitCollection(f"{collection.traits.identity} holds no row with a vector")
    with phases("compute"):
        ground = settle(collection, pages, lineage, list(keys.values()), home.journal.live)
        live = home.version(home.journal.live) if home.journal.live else None
        proposal = propose(collection, ground, keys, train, held_out, options, live)
    proposal.facts.update(survey.facts)
    proposal.facts["warnings"] += survey.warnings
    return proposal


def _kept(home: State, proposal: Proposal, judgements: Judgements, collection: Collection) -> Version:
    """Return the version that holds the same already, live, on its way or waiting, else keep a new one."""
    live, unfinished = home.journal.live, home.journal.unfinished
    current = live if unfinished is None else unfinished
    if current and same_content(home.version(current).content, proposal.content, home):
        return home.version(current)
    newest = max(home.versions(), key=lambda version: version.number, default=None)
    if newest and _waits(newest, home, proposal) and same_content(newest.content, proposal.content, home):
        return newest
    traits = collection.traits
    return home.add_version(
        proposal.content,
        {
            "created": now(),
            "parent": live,
            "collection": traits.identity,
            "engine": traits.engine,
            "judgements": judgements.digest(),
            "judgements_from": judgements.source,
            **proposal.facts,
        },
    )


def _waits(version: Version, home: State, proposal: Proposal) -> bool:
    """Tell whether *version* was never applied, and could be in the place of *proposal*."""
    manifest = version.manifest
    same = manifest["parent"] == home.journal.live and manifest["proven"] == proposal.facts["proven"]
    return same and version.number not in home.journal.begun()


def same_content(left: Content, right: Content, home: State) -> bool:
    """Tell whether two contents have the same rows in the same places."""
    if not left.keys.same(right.keys):
        return False
    pairs = ((left.base, right.base), (left.tuned, right.tuned))
    parts = [slice(first, first + COMPARED_AT_ONCE) for first in range(0, len(left.keys), COMPARED_AT_ONCE)]
    return all(agree(one[part], other[part], home.traits.tolerance).all() for one, other in pairs for part in parts)


def as_plan(
    collection: Collection, home: State, version: Version, phases: Phases, figures: Mapping[str, Any] | None = None
) -> Plan:
    """Return *version* as a plan; *figures*, where given, are newer than those it was kept with."""
    known = version.facts() if figures is None else {**identity_of(version.manifest), **figures}
    report = plan_report(known, home.status_of(version), phases.seconds)
    return Plan(collection, home, version, {**report, "state_warnings": state_warnings(home.root)}, phases)


def _move(
    collection: Collection, home: State, number: int, report: Report, phases: Phases, throttle: float | None
) -> Applied:
    """Bring the collection to version *number*, read it back, and add what became of the rows to *report*."""
    pace = Pace(throttle)
    forget(home.pages)  # of an interrupted plan: they would show the rows as they were
    patient = Patient(collection)
    lineage = Lineage(home, number)
    rows = len(lineage.keys())
    with phases("write", rows) as step:
        tally = move_to(number, patient, home, lineage, step, pace)
    with unread_is_unfinished(number):
        unfinished_work = finished(patient, tally.written)
        pace.turn_to_another_kind()
        with phases("verify", rows) as step:
            findings = verify_live(number, patient, lineage, step, pace)
        if findings.astray:
            tally.skipped["unverified"] = findings.astray
        elif number == 0 and not tally.skipped:
            withdraw(patient, home)
    status = "applied" if home.journal.unfinished is None else "applying"
    outcome = {**move_report(tally, findings), **pace_report(pace)}
    another = [f"{of_another_model(number, findings)}; {PLAN_ANEW}"] if findings.of_another_model else []
    outcome["move_warnings"] = [*another, *unfinished_work]
    told = {**report, "status": status, **outcome, "seconds": dict(phases.seconds)}
    return Applied(told, tally.written, told["missing"], told["changed"], tally.skipped)


def _refuse_unproven(plan: Plan, *, force: bool) -> None:
    if not plan.proven and not force and plan.version.number not in plan.state.journal.begun():
        raise NotProven(
            f"version {plan.version.number} is not proven ({plan.report['reason']}); nothing was written. "
            "More judged queries help; --force applies it all the same"
        )


def _refuse_orphan(plan: Plan) -> None:
    home, number, parent = plan.state, plan.version.number, plan.version.manifest["parent"]
    if home.journal.live not in (parent, number) and home.journal.unfinished != number:
        raise StateConflict(
            f"version {number} was planned when version {parent} was live, and now version {home.journal.live} is; "
            "plan again with 'nudge-vdb plan ADDRESS --judgements PATH'"
        )
