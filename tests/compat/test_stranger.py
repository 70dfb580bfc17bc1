"""A project that knows nothing of us, with tests of its own: only its imports are changed, by the line on the page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "migrate" / "grpc-interceptor.md"

SHOP = """
import grpc
import grpc_interceptor
from grpc_interceptor import ClientCallDetails, ClientInterceptor, ServerInterceptor, parse_method_name
from grpc_interceptor.exception_to_status import AsyncExceptionToStatusInterceptor, ExceptionToStatusInterceptor
from grpc_interceptor.server import AsyncServerInterceptor, grpc_aio


class Audit(ServerInterceptor):
    def __init__(self):
        self.lines = []

    def intercept(self, method, request, context, method_name):
        name = parse_method_name(method_name)
        try:
            response = method(request, context)
        except Exception as error:
            self.lines.append((name.service, name.method, type(error).__name__))
            raise
        self.lines.append((name.fully_qualified_service, name.method, "ok"))
        return response


class AsyncAudit(AsyncServerInterceptor):
    def __init__(self):
        self.lines = []

    async def intercept(self, method, request, context: grpc_aio.ServicerContext, method_name):
        self.lines.append(method_name)
        answer = method(request, context)
        return answer if hasattr(answer, "__aiter__") else await answer


class Token(ClientInterceptor):
    def intercept(self, method, request_or_iterator, call_details):
        details = ClientCallDetails(
            call_details.method, call_details.timeout, [("token", "t")], call_details.credentials,
            call_details.wait_for_ready, call_details.compression,
        )
        return method(request_or_iterator, details)


def statuses(aio):
    kind = grpc_interceptor.AsyncExceptionToStatusInterceptor if aio else grpc_interceptor.ExceptionToStatusInterceptor
    assert kind is (AsyncExceptionToStatusInterceptor if aio else ExceptionToStatusInterceptor)
    return kind(status_on_unknown_exception=grpc.StatusCode.INTERNAL)
"""

TESTS = """
import gc
import grpc
import pytest
from grpc_interceptor import exceptions, testing
from grpc_interceptor.testing import DummyRequest, dummy_client, raises
from grpc_interceptor.testing.dummy_client import dummy_channel
from grpc_interceptor.testing.protos.dummy_pb2_grpc import DummyServiceStub

from shop import AsyncAudit, Audit, Token, statuses

CASES = {
    "gone": raises(exceptions.NotFound("it is gone")),
    "bug": raises(KeyError("bug")),
    "token": lambda _, context: dict(context.invocation_metadata())["token"],
}


@pytest.fixture(params=[False, True])
def shop(request):
    audit = AsyncAudit() if request.param else Audit()
    stack = [audit, statuses(request.param)]
    with dummy_client(CASES, stack, [Token()], aio_server=request.param) as client:
        yield client, audit


def test_answers(shop):
    client, audit = shop
    assert client.Execute(DummyRequest(input="hello")).output == "hello"
    assert client.Execute(DummyRequest(input="token")).output == "t"
    assert "".join(each.output for each in client.ExecuteServerStream(DummyRequest(input="token"))) == "t"
    assert len(audit.lines) == 3


@pytest.mark.parametrize(("case", "code"), [("gone", "NOT_FOUND"), ("bug", "INTERNAL")])
def test_failures(shop, case, code):
    client, _ = shop
    with pytest.raises(grpc.RpcError) as failed:
        client.ExecuteClientStream(DummyRequest(input=each) for each in ("a", case))
    assert failed.value.code().name == code


def test_channel():
    with dummy_channel({}) as channel:
        assert DummyServiceStub(channel).Execute(DummyRequest(input="a")) == testing.DummyResponse(output="a")
"""


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True], ids=["as it is", "with our imports"])
def test_its_tests_pass(tmp_path: Path, changed: bool) -> None:
    """With the published package, and with every `grpc_interceptor` replaced as the page says."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    if changed:
        command = re.search(r"^\$ (grep .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
        assert command is not None
        subprocess.run(["/bin/sh", "-c", command[1]], cwd=tmp_path, check=True, timeout=60)

    python = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"]
    done = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert ("import interpose.compat.grpc_interceptor" in (tmp_path / "shop.py").read_text()) == changed
    assert done.returncode == 0 and "7 passed" in done.stdout, done.stdout + done.stderr
