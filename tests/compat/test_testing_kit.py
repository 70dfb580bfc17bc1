"""The testing kit of both packages: the dummy service on every kind of server and client, and how it is misused."""

import gc
import threading
from typing import Any

import grpc
import pytest

from tests.compat.apis import BOTH, ORIGINAL, OURS, Api
from tests.compat.observing import anonymous

METHODS = ("Execute", "ExecuteClientStream", "ExecuteServerStream", "ExecuteClientServerStream")
SERVERS = {"sync": {}, "aio": {"aio_server": True}, "read-write": {"aio_server": True, "aio_read_write": True}}
CASES = ("plain", "upper", "bug", "grpc", "metadata", "")

# The original leaves its event loop unclosed.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def special_cases(api: Api) -> dict[str, Any]:
    return {
        "upper": lambda text, context: text.upper(),
        "bug": api.testing.raises(ValueError("a bug")),
        "grpc": api.testing.raises(api.exceptions.NotFound("not here")),
        "metadata": lambda text, context: str([each for each in context.invocation_metadata() if each[0] == "x-key"]),
    }


def ask(api: Api, client: Any, method: str, case: str) -> Any:
    """What a sync client sees."""
    requests = [api.testing.DummyRequest(input=each) for each in ("first", case)]
    argument = iter(requests) if "Client" in method else requests[1]
    try:
        answer = getattr(client, method)(argument, metadata=(("x-key", "value"),))
        return [each.output for each in answer] if method.endswith("Stream") and "Server" in method else answer.output
    except grpc.RpcError as error:
        return error.code(), anonymous(error.details())


class Count:
    """User code that counts what it is asked."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def sync(self, api: Api) -> Any:
        count = self

        class Counting(api.ServerInterceptor):
            def intercept(self, method, request_or_iterator, context, method_name):
                count.methods.append(str(api.parse_method_name(method_name)))
                return method(request_or_iterator, context)

        return [Counting(), api.ExceptionToStatusInterceptor()]

    def aio(self, api: Api) -> Any:
        count = self

        class Counting(api.AsyncServerInterceptor):
            async def intercept(self, method, request_or_iterator, context, method_name):
                count.methods.append(str(api.parse_method_name(method_name)))
                answer = method(request_or_iterator, context)
                return answer if hasattr(answer, "__aiter__") else await answer

        return [Counting(), api.AsyncExceptionToStatusInterceptor()]


@pytest.mark.parametrize("intercepted", [False, True])
@pytest.mark.parametrize("server", SERVERS)
def test_the_dummy_client_is_the_same(server: str, intercepted: bool) -> None:
    """Every method and special case, on each server, with interceptors and without."""
    seen = {}
    for api in BOTH:
        count = Count()
        stack = (count.aio if SERVERS[server] else count.sync)(api) if intercepted else None
        with api.testing.dummy_client(special_cases(api), stack, **SERVERS[server]) as client:
            seen[api] = [ask(api, client, method, case) for method in METHODS for case in CASES], count.methods
    gc.collect()

    assert seen[OURS] == seen[ORIGINAL]


@pytest.mark.parametrize("server", ["aio", "read-write"])
async def test_an_asyncio_client_is_the_same(server: str) -> None:
    """With `aio_client=True` the stub is one of grpc.aio's, also for writing."""
    seen: dict[Api, list[Any]] = {api: [] for api in BOTH}
    for api in BOTH:
        dummy, request = api.testing.dummy_client, api.testing.DummyRequest
        with dummy(special_cases(api), Count().aio(api), aio_client=True, **SERVERS[server]) as client:
            seen[api].append((await client.Execute(request(input="upper"))).output)
            seen[api].append([each.output async for each in client.ExecuteServerStream(request(input="upper"))])
            call = client.ExecuteClientStream()
            for text in ("a", "upper"):
                await call.write(request(input=text))
            await call.done_writing()
            seen[api].append((await call).output)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await client.Execute(request(input="grpc"))
            seen[api].append((failed.value.code(), failed.value.details()))
    gc.collect()

    assert seen[OURS] == seen[ORIGINAL] == ["UPPER", list("UPPER"), "aUPPER", (grpc.StatusCode.NOT_FOUND, "not here")]


async def test_special_cases_may_be_coroutines() -> None:
    """On an asyncio server."""

    async def later(text: str, context: Any) -> str:
        return text * 2

    seen = {}
    for api in BOTH:
        with api.testing.dummy_client({"ab": later}, aio_server=True, aio_client=True) as client:
            seen[api] = (await client.Execute(api.testing.DummyRequest(input="ab"))).output
    gc.collect()

    assert seen == dict.fromkeys(BOTH, "abab")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"aio_client": True}, ValueError("aio_server must be True if aio_client is True")),
        (
            {"aio_client": True, "client_interceptors": [1]},
            TypeError("Client interceptors not supported with async channel"),
        ),
        ({"aio_server": True, "interceptors": [1]}, TypeError("Set aio_server correctly")),
    ],
)
def test_misuse_is_told_in_the_same_words(options: dict[str, Any], told: Exception) -> None:
    """The exceptions are those of the original, which raises some of them too late to stop its server."""
    with pytest.raises(type(told)) as refused, OURS.testing.dummy_client({}, **options):
        pass

    assert repr(refused.value) == repr(told)


async def test_a_server_that_fails_when_it_stops_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception comes from the server's own thread, as that of any thread; the block ends all the same."""
    told: list[tuple[type[BaseException], str]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append((args.exc_type, args.thread.name)))
    with OURS.module("testing.dummy_client").dummy_channel({}, aio_server=True, aio_client=True) as channel:
        close = channel.close

        async def broken() -> None:
            await close()
            raise LookupError("not closed well")

        monkeypatch.setattr(channel, "close", broken)

    assert told == [(LookupError, "dummy server")]


def test_the_empty_servicer_is_the_same() -> None:
    """A method that nobody wrote is UNIMPLEMENTED, with the text of generated code."""
    seen = {}
    for api in BOTH:
        generated = api.module("testing.protos.dummy_pb2_grpc")

        class Recording:
            def __init__(self) -> None:
                self.set: list[Any] = []

            def set_code(self, code: Any) -> None:
                self.set.append(code)

            def set_details(self, details: Any) -> None:
                self.set.append(details)

        context = Recording()
        for method in METHODS:
            with pytest.raises(NotImplementedError) as raised:
                getattr(generated.DummyServiceServicer(), method)(None, context)
            context.set.append(str(raised.value))
        seen[api] = context.set

    assert seen[OURS] == seen[ORIGINAL]


@pytest.mark.filterwarnings("ignore::grpc.experimental.ExperimentalApiWarning")
def test_calls_without_a_stub_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DummyService.Execute(request, target, insecure=True)`, by grpc's experimental API."""
    import grpc.experimental

    calls: list[Any] = []
    for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        monkeypatch.setattr(grpc.experimental, kind, lambda *arguments, kind=kind: calls.append((kind, arguments)))
    seen = {}
    for api in BOTH:
        generated, request = api.module("testing.protos.dummy_pb2_grpc"), api.testing.DummyRequest
        calls.clear()
        for method in METHODS:
            getattr(generated.DummyService, method)(request(input="a"), "target", insecure=True, timeout=3)
        seen[api] = [
            (kind, str(argument), target, path, encode(argument) if encode else None, rest)
            for kind, (argument, target, path, encode, _, *rest) in calls
        ]

    assert seen[OURS] == seen[ORIGINAL] and len(seen[OURS]) == 4


def test_raises_takes_anything() -> None:
    """It gives a function that raises, whatever it is given."""
    for api in BOTH:
        error = KeyError("a")

        with pytest.raises(KeyError) as raised:
            api.testing.raises(error)(1, two=2)
        assert raised.value is error
