"""What the demo claims, held against what was observed. It exits with 0 only if every claim holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import grpc

from interpose import Kind, Side
from interpose.demo import guards
from interpose.demo.chain import TIME
from interpose.demo.delivery import SERVICES
from interpose.demo.guards import CROWD, GOOD, GUEST, HASTY, STRANGER, Encounter
from interpose.demo.interceptors import Fate, Faults, Sample
from interpose.demo.load import Answer
from interpose.demo.orders import MalformedOrder, violations
from interpose.demo.outage import AFTER, BARE, BEFORE, CLIENTS, DURING, EVERY, HEDGE, RETRY, Passage, refused_once
from interpose.demo.refusals import MALFORMED
from interpose.demo.run import STACKS, Leg, Story
from interpose.demo.stack import ATTEMPTS, SHARE, rich_details

FOREVER = math.inf  # what a handler without a deadline has left

MOST_LOAD = 1.2  # attempts per call that a budget lets through to a server that refuses them all
SPARED = 0.9  # of the attempts that come without a circuit breaker


@dataclass(frozen=True)
class Claim:
    """A sentence, and what speaks against it: empty if it holds."""

    text: str
    against: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.against


def judge(story: Story) -> list[Claim]:
    """Every claim of the demo. The seed foretells each call's end, so they are exact whatever the timing.

    So are those about the outage: which calls are refused or slow goes by their numbers, and the circuit breaker counts the
    seconds of the load. While it opens, no more than ten calls pass, each with one copy, and then seven probes. Only a slow
    answer takes real time, ten times as long as a call waits for its hedge.
    """
    return [
        Claim("without the stack, the calls that failed are those that the seed foretold", _failures(story, 1)),
        Claim("with it, the calls that failed are those that the seed foretold", _failures(story, ATTEMPTS)),
        Claim("clients sent and servers received the attempts that the seed foretold", _attempts(story)),
        Claim(
            "no message was lost or doubled: a job's answer is the same wherever it was asked",
            _answers(story),
        ),
        Claim("each place counted the messages that its callers were given", _messages(story)),
        Claim(
            "the access log has one line per call at its client and one per attempt at its server",
            _log(story),
        ),
        Claim("an order passed three services under one request id, the one that its client gave it", _ids(story)),
        Claim("each service had less time than the one that called it", _deadlines(story)),
        Claim("a cancel at the top stopped all three services long before their time was over", _cancels(story)),
        Claim("both clients were given the rich details of a refused order as either server sent them", _rich(story)),
        Claim(
            "before the outage, Retry answered the calls that failed without it, and none failed", _ridden_out(story)
        ),
        Claim(f"in the outage, its budget kept the load below {MOST_LOAD} attempts per call", _budgeted(story)),
        Claim(f"a circuit breaker spared the failing server {SPARED:.0%} of that load", _spared(story)),
        Claim("of the calls that had a slow answer, Hedge gave most a quick one", _hedged(story)),
        Claim("after the outage, all clients came back to normal", _recovered(story)),
        Claim("no handler ran for a caller without a token, nor for a caller without the right", _kept_out(story)),
        Claim("a caller that came too often was answered as often as its limit allows", _rationed(story)),
        Claim("of a crowd, each server took what it can, and refused the others at once", _shed(story)),
        Claim("behind all of these, a good caller was served", _let_in(story)),
    ]


def failed(legs: Iterable[Leg]) -> int:
    """How many calls did not get the right answer; NOT_FOUND is right for an order that does not exist."""
    return sum(not answer.right for leg in legs for answer in leg.answers)


def _failures(story: Story, attempts: int) -> str:
    faults = Faults(story.seed, SHARE)
    for answer in _all(story.without if attempts == 1 else story.within):
        fate = faults.foretell(answer.request_id, attempts)
        if answer.right is not fate.served:
            wanted = answer.job.expect.name if fate.served else "a refusal"
            call, end = f"{answer.job.method} {answer.request_id}", f"{answer.code.name} {answer.details!r}"
            return f"{call} ended with {end}, not {wanted}"
    return ""


def _attempts(story: Story) -> str:
    for kind in Kind:
        foretold = sum(fate.attempts for fate in _fates(story, kind))
        for side in Side:
            seen = sum(sample.attempts for sample in _samples(story, side, kind))
            if seen != foretold:
                return f"{kind.value}: {seen} attempts seen by the {side.value}s, {foretold} foretold"
    return ""


def _answers(story: Story) -> str:
    contents: dict[int, set[tuple[bytes, ...]]] = defaultdict(set)
    for leg in (*story.without, *story.within):
        for number, answer in enumerate(leg.answers):
            if answer.code is answer.job.expect:
                contents[number].add(answer.responses)
    for number, different in contents.items():
        if len(different) > 1:
            return f"{story.jobs[number].method} was answered in {len(different)} ways"
    return ""


def _messages(story: Story) -> str:
    for kind in Kind:
        given = sum(len(answer.responses) for answer in _all(story.within) if answer.job.kind is kind)
        for side in Side:
            counted = sum(sample.responses for sample in _samples(story, side, kind))
            if counted != given:
                return f"{kind.value}: {counted} responses counted by {side.value}s, {given} given to callers"
    return ""


def _log(story: Story) -> str:
    attempts = sum(fate.attempts for kind in Kind for fate in _fates(story, kind))
    for side, wanted in ((Side.CLIENT, len(list(_all(story.within)))), (Side.SERVER, attempts)):
        lines = sum(line.place.endswith(side.value) for line in story.log.lines)
        if lines != wanted:
            return f"{lines} lines from the {side.value}s, {wanted} expected"
    return ""


def _ids(story: Story) -> str:
    for trip in story.trips:
        seen = [(visit.service, visit.request_id) for visit in trip.visits]
        if seen != [(service, trip.request_id) for service in SERVICES]:
            return f"{trip.request_id} was seen as {seen}"
        signed = () if trip.cancelled else (*reversed(SERVICES),)
        if trip.signatures != signed:
            return f"{trip.request_id} ended with {trip.code.name}, signed by {trip.signatures}"
    sent = {(trip.client, trip.cancelled is not None) for trip in story.trips}
    return "" if len(sent) == 2 * len(STACKS) else f"only {len(sent)} orders were sent"


def _deadlines(story: Story) -> str:
    for trip in story.trips:
        left = [FOREVER if visit.left is None else visit.left for visit in trip.visits]
        if max(left, default=FOREVER) > TIME or not all(less < more for more, less in pairwise(left)):
            return f"{trip.request_id} had these seconds left: {left}, of {TIME}"
    return ""


def _cancels(story: Story) -> str:
    for trip in story.trips:
        if trip.cancelled is None:
            continue
        if trip.code is not grpc.StatusCode.CANCELLED:
            return f"{trip.request_id} ended with {trip.code.name} for its client"
        for service in SERVICES:
            seconds = trip.stopped_after(service)
            if seconds is None or seconds > TIME / 2:
                return f"{service} was stopped {seconds} s after the cancel of {trip.request_id}"
    return ""


def _rich(story: Story) -> str:
    malformed = MalformedOrder(*violations(MALFORMED))
    foretold = grpc.StatusCode.INVALID_ARGUMENT, str(malformed), rich_details(malformed)  # as it is before it is packed
    for refusal in story.refusals:
        told = refusal.code, refusal.details, refusal.messages
        if told != foretold:
            return f"the {refusal.client} client got {told} from the {refusal.server} server"
    legs = {(refusal.client, refusal.server) for refusal in story.refusals}
    return "" if len(legs) == len(STACKS) ** 2 else f"the order was refused on these legs only: {sorted(legs)}"


def _ridden_out(story: Story) -> str:
    for passage in story.passages:
        asks = passage.during(BEFORE)
        failed = [ask.number for ask in asks if not ask.answered]
        foretold = [ask.number for ask in asks if passage.client == BARE and refused_once(ask.number)]
        if failed != foretold:
            return f"{passage.client}: calls {failed} failed, not {foretold}"
    clients = tuple(passage.client for passage in story.passages)
    return "" if clients == CLIENTS else f"only these clients met an outage: {clients}"


def _budgeted(story: Story) -> str:
    for passage in _passages(story, RETRY):
        if passage.load() > MOST_LOAD:
            return f"{passage.attempts[DURING]} attempts, {passage.load():.2f} per call"
    return ""


def _spared(story: Story) -> str:
    for passage in _passages(story, HEDGE):
        sent = sum(other.attempts[DURING] for other in _passages(story, RETRY))
        if passage.attempts[DURING] > (1 - SPARED) * sent:
            return f"{passage.attempts[DURING]} attempts came with it, {sent} without"
    return ""


def _hedged(story: Story) -> str:
    for passage in _passages(story, HEDGE):
        slow = sum(other.slow() for other in _passages(story, RETRY))
        if 2 * passage.slow() >= slow:
            return f"{passage.slow()} calls had a slow answer with it, {slow} without"
    return ""


def _recovered(story: Story) -> str:
    for passage in story.passages:
        last = passage.during(AFTER)[-2 * EVERY :]
        failed = sum(not ask.answered for ask in last)
        if failed:
            return f"{passage.client}: {failed} of the last {len(last)} calls failed"
    return ""


def _kept_out(story: Story) -> str:
    refused = {STRANGER: grpc.StatusCode.UNAUTHENTICATED, GUEST: grpc.StatusCode.PERMISSION_DENIED}
    for client, code in refused.items():
        for met in _encounters(story, client):
            if met.refused != {code: guards.CALLS[client]} or met.runs:
                return f"{_told(met)}, and {met.runs} reached a handler"
    return ""


def _rationed(story: Story) -> str:
    met = _encounters(story, HASTY)
    limits = 1 if story.guarded is not None and story.guarded.shared else len(met)
    answered = sum(one.answered for one in met)
    if met and answered != limits * guards.AN_HOUR:
        return f"{answered} calls were answered, not {limits * guards.AN_HOUR}"
    return _turned_away(met, grpc.StatusCode.RESOURCE_EXHAUSTED)


def _shed(story: Story) -> str:
    met = _encounters(story, CROWD)
    for one in met:
        if one.answered != guards.AT_ONCE:
            return f"{_told(one)}, not {guards.AT_ONCE}"
    return _turned_away(met, grpc.StatusCode.UNAVAILABLE)


def _turned_away(met: list[Encounter], code: grpc.StatusCode) -> str:
    """Those that were not answered were refused so, without a handler, and learnt when to come back."""
    for one in met:
        refused = len(one.codes) - one.answered
        if one.refused[code] != refused or one.runs != one.answered or len(one.back) != refused:
            return f"{_told(one)}: {dict(one.refused)}; {one.runs} reached a handler; {len(one.back)} learnt when to come back"
    return ""


def _let_in(story: Story) -> str:
    for one in _encounters(story, GOOD):
        if one.answered != guards.CALLS[GOOD]:
            return f"{_told(one)} of {guards.CALLS[GOOD]}"
    met = [(one.client, one.server) for client in guards.CLIENTS for one in _encounters(story, client)]
    return "" if len(set(met)) == len(guards.CLIENTS) * len(STACKS) else f"only these clients met servers: {met}"


def _encounters(story: Story, client: str) -> list[Encounter]:
    return [] if story.guarded is None else story.guarded.of(client)


def _told(met: Encounter) -> str:
    return f"the {met.server} server answered {met.answered} calls of the {met.client} client"


def _passages(story: Story, client: str) -> Iterator[Passage]:
    return (passage for passage in story.passages if passage.client == client)


def _all(legs: Iterable[Leg]) -> Iterator[Answer]:
    return (answer for leg in legs for answer in leg.answers)


def _fates(story: Story, kind: Kind) -> Iterator[Fate]:
    faults = Faults(story.seed, SHARE)
    return (faults.foretell(answer.request_id, ATTEMPTS) for answer in _all(story.within) if answer.job.kind is kind)


def _samples(story: Story, side: Side, kind: Kind) -> Iterator[Sample]:
    return (sample for stack in STACKS for sample in story.meters[stack, side].samples() if sample.kind is kind)
