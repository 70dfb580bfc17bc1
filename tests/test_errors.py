"""Statuses as exceptions."""

import copy
import inspect
import pickle
import traceback
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Metadata, StatusError, errors
from interpose._grpcio.sync_calls import InactiveCall
from interpose.testing import Place, failed

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_each_code_has_a_class(code: grpc.StatusCode) -> None:
    """The class of a code is named as the code is, is in `errors`, and says in its first words what the code is."""
    kind = errors.of(code)

    assert kind.__name__.upper() == code.name.replace("_", "")
    assert getattr(errors, kind.__name__) is kind
    assert kind.__doc__ is not None
    assert kind.__doc__.startswith(f"{code.name}: ")
    assert kind("why").code() is kind.status_code is code


def test_there_are_sixteen() -> None:
    """One per code, and none besides."""
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, StatusError)]

    assert len(classes) == len(CODES) + 1 == 17


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, 5, "NOT_FOUND", None])
def test_what_has_no_class(code: object) -> None:
    """OK is no error, and only a grpc.StatusCode is a code."""
    with pytest.raises(ValueError, match=r"give a grpc\.StatusCode other than OK"):
        errors.of(code)  # type: ignore[arg-type]


def test_a_status_without_a_code() -> None:
    """StatusError itself cannot be raised: it is for `except`."""
    with pytest.raises(
        TypeError, match=r"raise one of the subclasses of StatusError, or errors\.of\(code\)\(details\)"
    ):
        StatusError("what kind?")


def test_a_class_without_a_code() -> None:
    """It is for `except`, too; its own subclasses may have one."""

    class ShopError(StatusError):
        pass

    class SoldOut(ShopError, errors.ResourceExhausted):
        pass

    class Closed(ShopError):
        status_code = grpc.StatusCode.UNAVAILABLE

    with pytest.raises(TypeError, match="ShopError has no code of its own"):
        ShopError("which?")
    assert SoldOut("all").code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert Closed("today").code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, 5, "NOT_FOUND", None])
def test_a_class_with_a_code_that_is_none(code: Any) -> None:
    """It cannot be made: an error that says OK would let a refused RPC succeed."""
    with pytest.raises(TypeError, match=r"Odd\.status_code must be a grpc\.StatusCode other than OK"):
        type("Odd", (StatusError,), {"status_code": code})


class Forgetful(errors.NotFound):
    """An application's own error, whose constructor does not call that of its base."""

    def __init__(self, title: str) -> None:
        self.title = title


def test_a_constructor_that_calls_no_other() -> None:
    """The error has its code, and nothing else to tell."""
    error = errors.nativized(Forgetful("Emma"), grpc.aio.AioRpcError)

    assert (error.code(), error.details(), error.local) == (grpc.StatusCode.NOT_FOUND, "", False)
    assert error.trailing_metadata() == error.initial_metadata() == Metadata()
    assert (error.error_details, error.debug_error_string()) == ((), "")
    assert str(pickle.loads(pickle.dumps(error))) == "NOT_FOUND: "


def test_a_constructor_that_calls_no_other_everywhere(place: Place) -> None:
    """Its RPC ends with its code, and the interceptors are told."""
    outcomes = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    def refuse(call: Call) -> Flow:
        raise Forgetful("Emma")
        yield call

    with place.open(watch, refuse) as rpc:
        reply = rpc.call("a")

    assert reply.code is outcomes[0].code is grpc.StatusCode.NOT_FOUND


def test_what_an_error_is() -> None:
    """It answers as grpc's own errors do."""
    error = errors.NotFound(
        "no such book",
        trailing_metadata=[("x-why", "sold")],
        initial_metadata=[("x-first", "1")],
        local=True,
        debug_error_string="as the core says",
    )

    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no such book"
    assert error.trailing_metadata() == Metadata([("x-why", "sold")])
    assert error.initial_metadata() == Metadata([("x-first", "1")])
    assert error.debug_error_string() == "as the core says"
    assert error.local
    assert error.error_details == ()
    assert error.args == ("no such book",)


def test_a_bare_error() -> None:
    """Nothing need be given."""
    error = errors.Unavailable()

    assert error.details() == ""
    assert not error.trailing_metadata()
    assert not error.initial_metadata()
    assert not error.local


def test_details_are_text() -> None:
    """Whatever is given as details, they are text when they are sent."""
    assert errors.NotFound(17).details() == "17"  # type: ignore[arg-type]


def test_trailing_metadata_is_checked_where_it_is_written() -> None:
    """The line that made it raises, not the server that would send it."""
    with pytest.raises(ValueError, match="x-bad"):
        errors.NotFound(trailing_metadata=[("x-bad", "ü")])


def test_how_it_prints() -> None:
    """As text it names the code, whether it was made locally, and the details; as repr it looks like grpc's."""
    assert str(errors.NotFound("no such book")) == "NOT_FOUND: no such book"
    assert str(errors.Unavailable("open breaker", local=True)) == "UNAVAILABLE, made locally: open breaker"
    assert repr(errors.NotFound("no such book", debug_error_string="core")) == (
        "<NotFound of RPC that terminated with:\n"
        "\tstatus = StatusCode.NOT_FOUND\n"
        '\tdetails = "no such book"\n'
        '\tdebug_error_string = "core"\n'
        ">"
    )
    assert (
        "interpose.errors.NotFound: NOT_FOUND: no such book"
        in traceback.format_exception_only(errors.NotFound("no such book"))[0]
    )


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_it_travels(code: grpc.StatusCode) -> None:
    """Pickled or copied it is the same error, with pairs that only a peer could have sent."""
    trailing = Metadata.trusted([("grpc-odd", "ü"), ("sum-bin", b"\x00")])
    error = errors.of(code)("why", trailing_metadata=trailing, local=True, debug_error_string="core")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.trailing_metadata() == trailing
        assert twin.local
        assert twin.debug_error_string() == "core"


@pytest.mark.parametrize("native", [InactiveCall, grpc.aio.AioRpcError])
def test_native_and_typed(native: type) -> None:
    """What a stub raises is grpc's own class as well, with everything that the error had."""
    cause = ValueError()
    error = errors.NotFound("why", trailing_metadata=[("a", "1")], local=True)
    error.__cause__ = cause
    error.add_note("interceptor f raised")
    both = errors.nativized(error, native)

    assert isinstance(both, native)
    assert isinstance(both, errors.NotFound)
    assert type(both) is type(errors.nativized(errors.NotFound(), native)) is errors.native_class(type(both), native)
    assert errors.nativized(both, native) is both
    assert (both.code(), both.details(), both.local) == (grpc.StatusCode.NOT_FOUND, "why", True)
    assert both.trailing_metadata() == error.trailing_metadata()
    assert both.__cause__ is cause
    assert both.__notes__ == ["interceptor f raised"]
    assert str(both) == str(error)
    assert type(pickle.loads(pickle.dumps(both))) is type(both)


class NoSuchBook(errors.NotFound):
    """An application's own error."""

    def __init__(self, title: str) -> None:
        super().__init__(f"no book called {title}")
        self.title = title


def test_an_application_may_derive_its_own() -> None:
    """Its code stays, `of` goes on giving ours, and it keeps what it carries when it is made native."""
    both = errors.nativized(NoSuchBook("Emma"), grpc.aio.AioRpcError)

    assert errors.of(grpc.StatusCode.NOT_FOUND) is errors.NotFound
    assert isinstance(both, NoSuchBook)
    assert both.title == "Emma"
    assert both.details() == "no book called Emma"
    assert pickle.loads(pickle.dumps(both)).title == "Emma"
    assert type(copy.copy(NoSuchBook("Emma"))) is NoSuchBook


def test_one_error_is_caught_by_every_name(place: Place) -> None:
    """A failed call is caught as grpc.RpcError, as the class of its code, and as the class of its stack."""
    with place.open(script=[failed(grpc.StatusCode.NOT_FOUND, "gone")]) as rpc:
        reply = rpc.call("a")

    assert isinstance(reply.error, grpc.RpcError)
    if place.side.value == "client":
        assert isinstance(reply.error, errors.NotFound)
        assert isinstance(reply.error, grpc.aio.AioRpcError if place.asyncio else grpc.Call)
        assert not reply.error.local
