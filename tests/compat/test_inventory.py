"""Everything that users can import from the published package is here, under the same name and with the same signature."""

import asyncio
import copy
import inspect
import pickle
import subprocess
import sys
from types import ModuleType
from typing import Any

import grpc
import pytest

from tests.compat.apis import MODULES, ORIGINAL, OURS, Api

NEW = {"AsyncClientInterceptor"}
EXCEPTIONS = sorted(
    name for name, value in vars(ORIGINAL.exceptions).items() if inspect.isclass(value) and issubclass(value, Exception)
)


def public(module: ModuleType) -> dict[str, Any]:
    """What a module defines or lifts from its package, and grpc's modules; not what it needs of the standard library."""
    package = module.__name__.removeprefix("interpose.compat.").split(".")[0]
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (package in getattr(value, "__module__", package) or name == "grpc_aio")
        if getattr(value, "__name__", "").split(".")[0] not in {*sys.stdlib_module_names, "grpc_interceptor", "google"}
        if name != "annotations"
    }


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def own_methods(kind: type) -> dict[str, Any]:
    """The public methods that a class of either package has, inherited from its own classes too."""
    return {
        name: value
        for base in kind.__mro__
        if "grpc_interceptor" in base.__module__
        for name, value in vars(base).items()
        if inspect.isfunction(value) and (not name.startswith("_") or name == "__init__")
    }


def test_no_module_is_missing() -> None:
    """Each public module of the original is on the list that all these tests go through."""
    program = "import pkgutil, grpc_interceptor as g; print(*[m.name for m in pkgutil.walk_packages(g.__path__, 'g.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert {name.removeprefix("g.") for name in done.stdout.split()} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_every_name_can_be_imported(module: str) -> None:
    """`from grpc_interceptor.… import name` works with the new module path for each name."""
    theirs = public(ORIGINAL.module(module))

    assert theirs.keys() <= vars(OURS.module(module)).keys()


@pytest.mark.parametrize("module", ["", "testing"])
def test_a_star_gives_the_same(module: str) -> None:
    """`__all__` is the same, and the asyncio client's interceptor beside it."""
    ours, original = set(OURS.module(module).__all__), set(ORIGINAL.module(module).__all__)

    assert ours - original == (NEW if not module else set())
    assert original <= ours


SIGNATURES = sorted(
    {
        (module, name)
        for module in MODULES
        for name, value in public(ORIGINAL.module(module)).items()
        if callable(value) and "pb2" not in getattr(value, "__module__", "") and not name.endswith("Function")
    }
)


@pytest.mark.parametrize(("module", "name"), SIGNATURES)
def test_signatures_are_the_same(module: str, name: str) -> None:
    """Names, order, kinds and defaults of parameters: of functions, of classes, and of every public method."""
    ours, original = getattr(OURS.module(module), name), getattr(ORIGINAL.module(module), name)

    assert shape(ours) == shape(original)
    if inspect.isclass(original):
        mine = own_methods(ours)
        for method, function in own_methods(original).items():
            assert shape(mine[method]) == shape(function), method
            assert inspect.iscoroutinefunction(mine[method]) == inspect.iscoroutinefunction(function), method


@pytest.mark.parametrize(("module", "name"), SIGNATURES)
def test_base_classes_of_grpc_are_the_same(module: str, name: str) -> None:
    """What `isinstance` says of grpc's own classes stays."""
    ours, original = getattr(OURS.module(module), name), getattr(ORIGINAL.module(module), name)
    if not inspect.isclass(original):
        return

    assert set(grpcs(original)) == set(grpcs(ours))
    assert inspect.isabstract(ours) == inspect.isabstract(original)


def grpcs(kind: type) -> list[type]:
    return [base for base in kind.__mro__ if base.__module__.split(".")[0] in {"grpc", "builtins"}]


def test_the_generated_module_is_the_same() -> None:
    """Stub, servicer and the functions without a stub take the same arguments."""
    ours, original = OURS.module("testing.protos.dummy_pb2_grpc"), ORIGINAL.module("testing.protos.dummy_pb2_grpc")

    for name in ("DummyServiceStub", "add_DummyServiceServicer_to_server"):
        assert shape(getattr(ours, name)) == shape(getattr(original, name))
    for method in ("Execute", "ExecuteClientStream", "ExecuteServerStream", "ExecuteClientServerStream"):
        assert shape(getattr(ours.DummyServiceServicer, method)) == shape(
            getattr(original.DummyServiceServicer, method)
        )
        mine, theirs = getattr(ours.DummyService, method), getattr(original.DummyService, method)
        assert [each[1:] for each in shape(mine)] == [each[1:] for each in shape(theirs)]


@pytest.mark.parametrize("name", ["DummyRequest", "DummyResponse"])
def test_the_messages_are_the_same(name: str) -> None:
    """Same name, same fields, same bytes; and no clash, though both are loaded."""
    ours, original = getattr(OURS.testing, name), getattr(ORIGINAL.testing, name)
    (field,) = original.DESCRIPTOR.fields_by_name

    assert ours is not original
    assert ours.__name__ == original.__name__ and ours.DESCRIPTOR.full_name == original.DESCRIPTOR.full_name
    assert ours(**{field: "x"}).SerializeToString() == original(**{field: "x"}).SerializeToString()
    assert str(ours(**{field: "x"})) == str(original(**{field: "x"}))


def test_the_abstract_methods_pass_on() -> None:
    """`super().intercept(…)` calls `method`, as it does in the original, and awaits what must be awaited."""

    async def coroutine(*arguments: Any) -> Any:
        return arguments

    async def generator(*arguments: Any) -> Any:
        yield arguments

    async def collected(api: Api) -> Any:
        intercept = api.AsyncServerInterceptor.intercept
        streamed = [each async for each in await intercept(None, generator, 1, 2, "/a/b")]
        return await intercept(None, coroutine, 1, 2, "/a/b"), streamed

    def seen(api: Api) -> Any:
        server = api.ServerInterceptor.intercept(None, lambda *each: each, 1, 2, "/a/b")
        return server, api.ClientInterceptor.intercept(None, lambda *each: each, 1, 2), asyncio.run(collected(api))

    assert seen(OURS) == seen(ORIGINAL) == ((1, 2), (1, 2), ((1, 2), [(1, 2)]))
    assert asyncio.run(OURS.AsyncClientInterceptor.intercept(None, coroutine, 1, 2)) == (1, 2)


# --- exceptions -------------------------------------------------------------------------------------------------------

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("told",), {}),
    (("",), {}),
    ((None, grpc.StatusCode.ABORTED), {}),
    (("told", grpc.StatusCode.ABORTED), {}),
    ((), {"details": "told"}),
    ((), {"status_code": grpc.StatusCode.ABORTED}),
    (("told",), {"status_code": grpc.StatusCode.OK}),
    (("told", None, "too much"), {}),
]


def described(make: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """All that users can see of an exception; or why it cannot be made."""
    try:
        error = make(*arguments, **options)
    except ValueError as refused:
        return repr(refused)
    except TypeError:
        return TypeError
    return state(error), state(copy.copy(error)), state(pickle.loads(pickle.dumps(error)))


def state(error: Any) -> Any:
    return (
        error.status_code,
        error.details,
        error.status_string,
        str(error),
        repr(error),
        error.args,
        vars(error),
        [each.__name__ for each in type(error).__mro__],
    )


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_the_same(name: str) -> None:
    """Attributes, messages, arguments, `repr`, and copies, for every way to make each of them."""
    ours, original = getattr(OURS.exceptions, name), getattr(ORIGINAL.exceptions, name)

    assert (ours.status_code, ours.details) == (original.status_code, original.details)
    for arguments, options in ARGUMENTS:
        assert described(ours, arguments, options) == described(original, arguments, options)


def test_there_is_an_exception_per_code() -> None:
    """Each code but OK has its class, named as the code is."""
    codes = {code.name.title().replace("_", "") for code in grpc.StatusCode if code is not grpc.StatusCode.OK}

    assert codes | {"GrpcException"} == set(EXCEPTIONS)


# --- names and details ------------------------------------------------------------------------------------------------


def parsed(api: Api, name: str) -> Any:
    try:
        found = api.parse_method_name(name)
    except ValueError as error:
        return repr(error)
    return found.package, found.service, found.method, found.fully_qualified_service, repr(found)


@pytest.mark.parametrize(
    "name",
    ["/a.b.Service/Do", "/Service/Do", "/a.Service/", "//", "/.Service/Do", "/", "", "Service/Do", "/a/b/c", "a//b"],
)
def test_method_names_are_the_same(name: str) -> None:
    """Good ones and bad ones."""
    assert parsed(OURS, name) == parsed(ORIGINAL, name)


def test_call_details_are_the_same() -> None:
    """A tuple with the same fields, which are all required, and which `_replace` changes."""

    def seen(api: Api) -> Any:
        details = api.ClientCallDetails("/a/b", 1.0, [("k", "v")], None, True, None)
        changed = details._replace(timeout=None)
        return (
            tuple(details),
            tuple(changed),
            details._fields,
            repr(details),
            isinstance(changed, grpc.ClientCallDetails),
        )

    assert seen(OURS) == seen(ORIGINAL)
    with pytest.raises(TypeError):
        OURS.ClientCallDetails("/a/b")


@pytest.mark.parametrize("name", ["ExceptionToStatusInterceptor", "AsyncExceptionToStatusInterceptor"])
def test_ok_is_refused_alike(name: str) -> None:
    """OK is no code for an exception."""
    messages = []
    for api in (OURS, ORIGINAL):
        with pytest.raises(ValueError, match="cannot be OK") as refused:
            getattr(api, name)(status_on_unknown_exception=grpc.StatusCode.OK)
        messages.append(str(refused.value))

    assert messages[0] == messages[1]


def test_without_protobuf_the_extra_is_named() -> None:
    """Only the dummy service needs protobuf; without it the error says what to install, and all else works."""
    program = """
import sys
sys.modules["google.protobuf"] = None
import interpose.compat.grpc_interceptor
import interpose.compat.grpc_interceptor.exceptions
try:
    import interpose.compat.grpc_interceptor.testing
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert 'pip install "interpose[testing]"' in done.stdout
