"""Tracing: one trace through a chain of services, whatever it is carried by."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from interpose import Call, Flow, Metadata, chain
from interpose.contrib.opentelemetry import Tracing
from interpose.contrib.opentelemetry.propagation import _READER, _WRITER, extracted, injected
from interpose.testing import PLACES, Place, play
from tests.contrib.opentelemetry.receiver import Exporting
from tests.interceptors.coalescing import call_of
from tests.interceptors.driving import incoming, is_server, outgoing, requests
from tests.support.examples import examples

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENTS = [place for place in PLACES if not is_server(place)]
SERVERS = [place for place in PLACES if is_server(place)]


def parent(flags: str = "01") -> str:
    return f"00-{TRACE}-{SPAN}-{flags}"


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_what_is_sent_carries_the_span(place: Place, exporting: Exporting) -> None:
    """Exactly one traceparent, in the place of any that was there; all else stays, and in its order."""
    there = [("x-a", "1"), ("traceparent", parent()), ("x-a", "2"), ("tracestate", "old=1")]
    with place.open(Tracing(exporting.provider)) as rpc:
        rpc.call(*requests(place), metadata=there)
        [span] = exporting.spans(1)
    [attempt] = rpc.attempts

    assert attempt.values("traceparent") == [
        f"00-{span.trace_id}-{span.span_id}-{attempt.values('traceparent')[0][-2:]}"
    ]
    assert attempt.values("x-a") == ["1", "2"]


def test_a_key_that_is_there_is_replaced(exporting: Exporting) -> None:
    """Whatever its case; grpc's core may hide that a key was sent twice."""
    there = [("x-a", "1"), ("Traceparent", parent()), ("x-a", "2")]
    [sent] = play(Tracing(exporting.provider), **outgoing(metadata=there)).sent
    [span] = exporting.spans(1)

    [value] = sent.call.metadata.get_all("traceparent")
    assert span.span_id in value
    assert [pair for pair in sent.call.metadata if pair[0] == "x-a"] == [("x-a", "1"), ("x-a", "2")]


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_what_came_in_is_the_parent(place: Place, exporting: Exporting) -> None:
    """As W3C writes it."""
    with place.open(Tracing(exporting.provider)) as rpc:
        rpc.call(*requests(place), metadata=[("traceparent", parent())])
        [span] = exporting.spans(1)

    assert (span.trace_id, span.parent) == (TRACE, SPAN)


def test_of_two_parents_the_first_is_taken(exporting: Exporting) -> None:
    """As a careless proxy may leave them; grpc's core hands on the last alone since some version."""
    play(
        Tracing(exporting.provider),
        **incoming(metadata=[("traceparent", parent()), ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")]),
    )
    [span] = exporting.spans(1)

    assert (span.trace_id, span.parent) == (TRACE, SPAN)


@pytest.mark.parametrize("what", ["nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "", parent() + "-x"])
def test_what_is_no_parent_begins_a_trace(what: str, exporting: Exporting) -> None:
    """As W3C has it, and the RPC knows nothing of it."""
    play(Tracing(exporting.provider), **incoming(metadata=[("traceparent", what)]))
    [span] = exporting.spans(1)

    assert span.parent == ""


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
@pytest.mark.parametrize("provider", [None, "noop"])
def test_flags_are_kept_where_nothing_records(flags: str, provider: str | None) -> None:
    """Without a provider, a service hands on what it was given: trace, span, flags and state."""
    tracing = Tracing(None if provider is None else trace.NoOpTracerProvider())
    sent = through(tracing, [("traceparent", parent(flags)), ("tracestate", "a=1,b=2")])

    assert sent.get_all("traceparent") == [parent(flags)]
    assert sent.get_all("tracestate") == ["a=1,b=2"]


def test_a_trace_that_is_not_sampled_stays_so(exporting: Exporting) -> None:
    """Nothing is recorded here, and the flag says so to those behind; the state is handed on."""
    sent = through(Tracing(exporting.provider), [("traceparent", parent("00")), ("tracestate", "a=1")])
    [value] = sent.get_all("traceparent")

    assert value.startswith(f"00-{TRACE}-")
    assert value.endswith("-00")
    assert sent.get_all("tracestate") == ["a=1"]


def test_a_trace_that_is_sampled_stays_so(exporting: Exporting) -> None:
    """The call of a handler is below its span, and that below what came in."""
    sent = through(Tracing(exporting.provider), [("traceparent", parent("01")), ("tracestate", "a=1")])
    outgoing_span, incoming_span = exporting.spans(2)

    assert sent.get_all("traceparent") == [f"00-{TRACE}-{outgoing_span.span_id}-01"]
    assert (outgoing_span.parent, incoming_span.parent) == (incoming_span.span_id, SPAN)


def test_baggage_travels(exporting: Exporting) -> None:
    """With a span and without one."""
    for tracing in (Tracing(exporting.provider), Tracing()):
        sent = through(tracing, [("baggage", "tenant=acme")])
        assert sent.get_all("baggage") == ["tenant=acme"]
    exporting.spans(2)


def test_an_application_may_choose_another_propagator(exporting: Exporting) -> None:
    """It is asked at each RPC, and given all metadata."""

    class Simple(TextMapPropagator):
        fields = {"X-Trace"}  # noqa: RUF012

        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
            assert "x-other" in getter.keys(carrier)
            assert getter.get(carrier, "x-bytes-bin") is None
            number = int(getter.get(carrier, "x-trace")[0], 16)
            span = trace.SpanContext(number, 7, is_remote=True, trace_flags=trace.TraceFlags(1))
            return trace.set_span_in_context(trace.NonRecordingSpan(span), context)

        def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
            setter.set(carrier, "X-Trace", f"{trace.get_current_span(context).get_span_context().trace_id:x}")

    with propagator(Simple()):
        sent = through(Tracing(exporting.provider), [("x-trace", "abc"), ("x-other", "1"), ("x-bytes-bin", b"1")])
    spans = exporting.spans(2)

    assert {span.trace_id for span in spans} == {"abc".rjust(32, "0")}
    assert sent.get_all("x-trace") == ["abc"]


@pytest.mark.parametrize("attempts", ["events", "spans", None])
def test_what_a_sampler_drops_is_not_recorded(attempts: Any) -> None:
    """It is current all the same, so that all that follows is dropped too."""
    tracing = Tracing(TracerProvider(ParentBased(ALWAYS_OFF), shutdown_on_exit=False), attempts=attempts)
    sent = through(tracing, [])

    [value] = sent.get_all("traceparent")
    assert value[-2:] in {"00", "02"}


def through(tracing: Tracing, metadata: list[tuple[str, str | bytes]]) -> Metadata:
    """What a handler's own call carries, if its service is sent this."""
    sent: list[Metadata] = []

    def handler(call: Call) -> Flow:
        sent.extend(one.call.metadata for one in play(tracing, **outgoing()).sent)
        yield call

    context.attach(context.Context())
    play(chain(tracing, handler), **incoming(metadata=metadata))
    context.attach(context.Context())
    [one] = sent
    return one


@contextmanager
def propagator(chosen: TextMapPropagator) -> Iterator[None]:
    """While the application has chosen this one."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(chosen)
    try:
        yield
    finally:
        propagate.set_global_textmap(before)


def test_baggage_of_the_application_is_sent(exporting: Exporting) -> None:
    """As set with the API."""
    context.attach(baggage.set_baggage("tenant", "acme"))
    [sent] = play(Tracing(exporting.provider), **outgoing()).sent
    exporting.spans(1)

    assert sent.call.metadata.get_all("baggage") == ["tenant=acme"]


HEADERS = st.one_of(
    st.from_regex(r"0[0-1f]-[0-9a-fA-F]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?", fullmatch=True),
    st.from_regex(r"[ \t]?00-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-[0-9a-f]{2}[ \t]?", fullmatch=True),
    st.text(st.characters(codec="ascii"), max_size=60),
)
CARRIED = st.lists(
    st.one_of(
        st.tuples(st.just("traceparent"), HEADERS),
        st.tuples(st.just("tracestate"), st.sampled_from(["a=1", "a=1,b=2", "=", ""])),
        st.tuples(st.just("baggage"), st.sampled_from(["a=1", "a=1,b=2;c", "", "="])),
        st.tuples(st.just("x-other"), st.just("1")),
    ),
    max_size=4,
)


@given(CARRIED)
@settings(max_examples=examples(200), deadline=None)
def test_the_short_way_leads_where_the_long_one_does(pairs: list[tuple[str, str]]) -> None:
    """What is read, and what is written for it, is what W3C's propagators of the API read and write."""
    metadata, before = Metadata.trusted(pairs), context.Context()
    ours = extracted(metadata, before)
    theirs = propagate.get_global_textmap().extract(metadata, before, getter=_READER)
    carrier: list[Any] = []
    propagate.get_global_textmap().inject(carrier, theirs, setter=_WRITER)

    span, expected = (trace.get_current_span(one).get_span_context() for one in (ours, theirs))
    assert (span, span.is_remote, span.trace_state) == (expected, expected.is_remote, expected.trace_state)
    assert baggage.get_all(ours) == baggage.get_all(theirs)
    assert injected(call_of(), ours, trace.get_current_span(ours).get_span_context()).metadata == tuple(carrier)
