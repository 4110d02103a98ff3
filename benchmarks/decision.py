"""How long a decision takes, with its reason, beside a bare loop of as many gets and beside others who decide.

Half of the questions are allowed, half are refused, all contenders are asked the same ones, and in turns.
"""

import gc
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final
from uuid import UUID

from access.decision import Decision, Requirement
from access.path import AccessPath
from access.records import permissions_key
from benchmarks import peers
from benchmarks.bed import Bed
from benchmarks.figures import Figure, medians, percentile
from benchmarks.filling import filled_path, freshen
from benchmarks.peers import Contender
from benchmarks.reference import MISSING_PERMISSION, MODULE, PERMISSION, person
from cli import progress
from contracts.problems import Reason

_SIZES: Final = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
#: People of pycasbin's sets, by their rules.
_RULES: Final = {"1k": 1_000, "11k": 10_000, "110k": 100_000}
_CEDAR_PEOPLE: Final = 10_000
_ROUNDS: Final = 7
_CALLS: Final = 20_000
_CALLS_OF: Final = {
    **{f"fast_{rules}": 1000 for rules in _RULES},
    "default_1k": 200,
    "default_11k": 20,
    "default_110k": 4,
    "cedar": 2000,
    "cedar_parsed": 4000,
}
_WARMING_CALLS: Final = 500


async def measure(bed: Bed) -> list[Figure]:
    """All of them in turn, round after round."""
    contenders: dict[str, Contender] = {}
    paths: dict[str, AccessPath] = {}
    with ExitStack() as stack:
        for size, people in _SIZES.items():
            with progress.step(f"a cache of {people:,} memberships"):
                path = stack.enter_context(filled_path(bed.folder / f"cache-{size}", people))
            paths[size] = path
            contenders[size], contenders[f"bare_{size}"] = _decisions(path, people), _bare(path, people)
        contenders["nothing"] = replace(contenders["10k"], ask=lambda _company, _user, _requirement: None)
        with progress.step("pycasbin and cedarpy"):
            for rules, people in _RULES.items():
                contenders[f"fast_{rules}"] = peers.pycasbin(people, fast=True)
                contenders[f"default_{rules}"] = peers.pycasbin(people, fast=False)
            contenders["cedar"] = peers.cedar(_CEDAR_PEOPLE, parsed_policies=False)
            contenders["cedar_parsed"] = peers.cedar(_CEDAR_PEOPLE, parsed_policies=True)
        # What is there now is no garbage: to look through a million rules of others is not a decision's time.
        gc.collect()
        gc.freeze()
        try:
            found = await medians(
                {name: partial(_times, name, contender, paths.get(name)) for name, contender in contenders.items()},
                _ROUNDS,
            )
        finally:
            gc.unfreeze()
    return _figures(found)


def _figures(found: Mapping[str, float]) -> list[Figure]:
    # The time of looking at the clock is in every call.
    nothing = {which: found[f"nothing_{which}"] for which in ("p50", "p99", "allowed", "refused", "mean")}

    def us(name: str, which: str) -> float:
        return found[f"{name}_{which}"] - nothing[which]

    def times(name: str, which: str) -> float:
        return us(name, which) / us("1m", which)

    return [
        Figure("decision_p50_us", us("1m", "p50"), "us"),
        Figure("decision_p99_us", us("1m", "p99"), "us"),
        Figure("decision_100k_p50_us", us("100k", "p50"), "us"),
        Figure("decision_10k_p50_us", us("10k", "p50"), "us"),
        Figure("decision_flatness", us("1m", "p50") / us("10k", "p50"), "x"),
        Figure("bare_lmdb_p50_us", us("bare_1m", "p50"), "us"),
        Figure("decision_vs_bare_lmdb", us("1m", "p50") / us("bare_1m", "p50"), "x"),
        Figure("decision_100k_vs_bare_lmdb", us("100k", "p50") / us("bare_100k", "p50"), "x"),
        Figure("decision_10k_vs_bare_lmdb", us("10k", "p50") / us("bare_10k", "p50"), "x"),
        # What pycasbin's own benchmark asks is refused.
        Figure("decision_vs_pycasbin_110k", times("default_110k", "refused"), "x"),
        Figure("decision_vs_pycasbin_110k_allowed", times("default_110k", "allowed"), "x"),
        Figure("decision_vs_pycasbin_11k", times("default_11k", "refused"), "x"),
        Figure("decision_vs_pycasbin_1k", times("default_1k", "refused"), "x"),
        Figure("decision_vs_pycasbin_fast", times("fast_110k", "refused"), "x"),
        Figure("decision_vs_pycasbin_fast_11k", times("fast_11k", "refused"), "x"),
        Figure("decision_vs_pycasbin_fast_1k", times("fast_1k", "refused"), "x"),
        Figure("decision_vs_cedarpy", times("cedar", "mean"), "x"),
        Figure("decision_vs_cedarpy_parsed", times("cedar_parsed", "mean"), "x"),
        Figure("pycasbin_110k_us", us("default_110k", "refused"), "us"),
        Figure("pycasbin_fast_110k_us", us("fast_110k", "refused"), "us"),
        Figure("cedarpy_us", us("cedar", "mean"), "us"),
        Figure("cedarpy_parsed_us", us("cedar_parsed", "mean"), "us"),
    ]


async def _times(name: str, contender: Contender, path: AccessPath | None) -> Mapping[str, float]:
    """Microseconds of a call. Everybody's random people are the same ones."""
    if path is not None:
        freshen(path)
    random, ask = Random(5), contender.ask  # noqa: S311  a sample, not a secret
    questions = [
        contender.question(random.randrange(contender.people), number % 2 == 0) for number in range(_calls(name))
    ]
    for question in questions[: min(_WARMING_CALLS, len(questions) // 4)]:
        ask(*question)
    taken = []
    for question in questions:
        started = time.perf_counter_ns()
        ask(*question)
        taken.append((time.perf_counter_ns() - started) / 1000)
    return {
        f"{name}_p50": statistics.median(taken),
        f"{name}_p99": percentile(taken, 99),
        f"{name}_mean": statistics.fmean(taken),
        f"{name}_allowed": statistics.fmean(taken[::2]),
        f"{name}_refused": statistics.fmean(taken[1::2]),
    }


def _calls(name: str) -> int:
    """How often it is asked in a round: about as long as the others."""
    return _CALLS_OF.get(name, _CALLS)


def _decisions(path: AccessPath, people: int) -> Contender:
    """The decision of the chain's fourth and fifth step."""
    held, missing = Requirement.of(PERMISSION), Requirement.of(MISSING_PERMISSION)

    def question(number: int, is_held: bool) -> tuple[UUID, UUID, Requirement]:  # noqa: FBT001  as every contender
        return *person(number, people), held if is_held else missing

    def ask(company_id: UUID, user_id: UUID, requirement: Requirement) -> Decision:
        return path.decide(company_id, user_id, requirement, reading=True)

    for number in range(0, people, people // 1000):
        allowed, refused = ask(*question(number, True)), ask(*question(number, False))
        if not allowed.allowed or refused.reason is not Reason.PERMISSION_MISSING:
            raise AssertionError(f"not the decisions that are meant: {allowed}, {refused}")
    return Contender(people, question, ask)


def _bare(path: AccessPath, people: int) -> Contender:
    """The gets of a decision as a loop over LMDB has them, with the keys it needs made of ids, and nothing else."""
    environment = path.cache._environment  # noqa: SLF001  the store itself, past the code that is measured
    database, meta = path.cache._generations[0], path.cache._meta  # noqa: SLF001  the same
    requirement = Requirement.of(PERMISSION)
    row = permissions_key(MODULE)

    def question(number: int, _is_held: bool) -> tuple[UUID, UUID, Requirement]:  # noqa: FBT001  the same
        return *person(number, people), requirement

    def ask(company: UUID, user: UUID, _requirement: Requirement) -> None:
        with environment.begin() as transaction:
            transaction.get(b"head", db=meta)
            transaction.get(b"m" + company.bytes + user.bytes, db=database)
            transaction.get(b"e" + company.bytes, db=database)
            transaction.get(row, db=database)

    return Contender(people, question, ask)
