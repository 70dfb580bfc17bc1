"""A guard in `when` fails closed: patterns that match nothing are refused, or reported as soon as that is known."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from interpose import Call, Flow, Kind, Method, chain, errors, intercept_channel, when
from interpose._flow import layers
from interpose._unmatched import ENOUGH
from interpose.testing import Place
from tests.protos.compiled import Generated

PLAUSIBLE = ["shop.v1.Catalog.*", "shop.v1.Catalog", "/shop.v1.Catalog", "Catalog", "shop.v1.Catalog.GetItem"]


def require_token(call: Call) -> Flow:
    raise errors.Unauthenticated("no token")
    yield call


def see(guard: Any, *names: str) -> None:
    for name in names:
        layers((guard,), Method(name, Kind.UNARY_UNARY))


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "interpose")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("pattern", PLAUSIBLE)
def test_what_can_match_nothing_is_refused(pattern: str) -> None:
    """At construction, with what to write instead."""
    with pytest.raises(ValueError, match=r"when: the pattern '.*' names no method: write '/"):
        when(pattern, require_token)


def test_an_empty_list_is_refused() -> None:
    """It would guard nothing."""
    with pytest.raises(ValueError, match="an empty list of patterns applies to no method"):
        when([], require_token)


def test_braces_and_lists_guard(place: Place) -> None:
    """In every place: both spellings that seemed to work now do."""
    name = place.kind.value
    for pattern in (f"/interpose.testing.Echo/{{{name},other}}", ["/a.B/*", f"interpose.testing.Echo/{name}"]):
        with place.open(when(pattern, require_token)) as rpc:
            assert rpc.call("a").code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("pattern", "used", "meant"),
    [
        ("/shop.v1.catalog/getitem", "/shop.v1.Catalog/GetItem", "capitals count"),
        ("/Catalog/*", "/shop.v1.Catalog/GetItem", "write '/shop.v1.Catalog/*' if that service is meant"),
        ("/shop.v1.Catlog/Get*", "/shop.v1.Catalog/GetItem", "write '/shop.v1.Catalog/Get*' if that service is meant"),
    ],
)
def test_a_near_miss_is_reported_at_once(pattern: str, used: str, meant: str, warned: Any) -> None:
    """Once, with what it should have been, and what follows from it."""
    guard = when(pattern, require_token)

    see(chain(guard), used, used, "/shop.v1.Catalog/Other")

    (message,) = warned()
    assert message.startswith(f"when('{pattern}', require_token): {pattern} does not match {used!r}: {meant}")
    assert message.endswith("what it does not match passes without these interceptors")


def test_each_choice_of_braces_is_watched(generated: Generated, warned: Any) -> None:
    """One misspelled method among others that match; its proto is known, so this one is known to be none."""
    methods = generated("features_pb2").DESCRIPTOR.services_by_name
    (service,) = list(methods.values())[:1]
    name = service.methods[0].name
    guard = when(f"/{service.full_name}/{{{name},{name}s}}", require_token)

    see(guard, f"/{service.full_name}/{name}")

    (message,) = warned()
    assert f"{service.full_name} has no such method; write '/{service.full_name}/{name}'" in message


def test_a_service_that_no_proto_has(generated: Generated, warned: Any) -> None:
    """Of the same name in another package: known to be none, while one that there is may be called yet."""
    service = next(iter(generated("features_pb2").DESCRIPTOR.services_by_name.values()))
    used = f"/{service.full_name}/{service.methods[0].name}"

    see(when(f"/elsewhere.{service.name}/*", require_token), used)

    (message,) = warned()
    assert f"write '/{service.full_name}/*' if that service is meant" in message


def test_another_service_that_there_is(warned: Any) -> None:
    """Of the same name in another package, or nearly the same: it may be called yet, so nothing is said."""
    file = descriptor_pb2.FileDescriptorProto(name="guarded.proto", package="guarded.v1")
    file.message_type.add(name="Empty")
    for name in ("Catalog", "Catalogs"):
        file.service.add(name=name).method.add(name="Get", input_type="Empty", output_type="Empty")
    descriptor_pool.Default().Add(file)

    see(when("/guarded.v1.Catalogs/*", require_token), "/guarded.v1.Catalog/Get")
    assert not warned()

    see(when("/guarded.v1.Catalogz/*", require_token), "/guarded.v1.Catalog/Get")
    assert len(warned()) == 1


@pytest.mark.parametrize(
    ("pattern", "used"),
    [
        ("/shop.v1.*/Get*", "/shop.v1.Catalog/PlaceOrder"),
        ("/shop.v2.Catalog/*", "/shop.v1.Catalog/GetItem"),
        ("/grpc.health.v1.Health/*", "/shop.v1.Catalog/GetItem"),
        ("/shop.v1.Catalog/GetItem", "/shop.v1.Catalog/PlaceOrder"),
    ],
)
def test_what_may_be_meant_so_is_not_reported(pattern: str, used: str, warned: Any) -> None:
    """Another service, another version, another method: these may come yet."""
    see(when(pattern, require_token), used)

    assert not warned()


def test_after_enough_methods_it_is_reported(warned: Any) -> None:
    """Whatever was meant. The names of strangers are neither kept for ever nor shown as they are."""
    guard: Any = when(["/a.B/*", "/shop.*/*"], require_token)

    see(guard, *(f"/shop.v{number}.Catalog/Get\n" for number in range(3 * ENOUGH)))

    (message,) = warned()
    assert message.startswith(
        "when(['/a.B/*', '/shop.*/*'], require_token): /a.B/* has matched no method so far (methods used: 16"
    )
    assert not guard.unmatched._seen


async def test_when_a_channel_is_closed_it_is_reported(warned: Any) -> None:
    """On both stacks, once; not of a channel that was never used."""
    guards = [when(f"/{name}.B/*", require_token) for name in ("sync", "aio", "never")]

    with intercept_channel(grpc.insecure_channel("localhost:1"), chain(guards[0])) as channel:
        channel.unary_unary("/shop.v1.Catalog/GetItem")
    async with intercept_channel(grpc.aio.insecure_channel("localhost:1"), chain(guards[1])) as aio_channel:
        aio_channel.unary_unary("/shop.v1.Catalog/GetItem")
    intercept_channel(grpc.insecure_channel("localhost:1"), guards[2]).close()
    intercept_channel(grpc.insecure_channel("localhost:1"), guards[0]).close()

    assert ["/sync.B/*" in text or "/aio.B/*" in text for text in warned()] == [True, True]
    assert "has matched no method so far (methods used: 1)" in warned()[0]
