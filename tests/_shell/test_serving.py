"""What a server serves, compared with the tables of its interceptors when it starts."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Interceptor, Kind, Method, chain, intercept_server, when
from interpose._served import Served
from interpose._shell.serving import Registered, check_served
from interpose.interceptors import Authenticate, Authorize, StaticTokens, anyone, require
from interpose.testing import Echo

TOKENS = StaticTokens({"token": "ann"})
METHODS = tuple(Method(f"/shop.v1.Orders/{name}", Kind.UNARY_UNARY) for name in ("Get", "List", "Place"))


def faults(*interceptors: Interceptor, generic: bool = False) -> str:
    """What is said of them; "" if nothing is."""
    try:
        check_served(interceptors, Served(METHODS, generic))
    except ValueError as error:
        return str(error)
    return ""


def test_rows_that_fit_are_well() -> None:
    """Also those that are always there: health and reflection, and everything."""
    assert not faults(Authenticate(TOKENS), Authorize({"/shop.v1.Orders/Get*": anyone, "*": require()}))
    assert not faults(Authorize(require()), lambda call: iter(()))


@pytest.mark.parametrize(
    ("interceptor", "complaint"),
    [
        (Authenticate(TOKENS, public="/shop.v1.Order/Get"), "Authenticate: public '/shop.v1.Order/Get' fits no method"),
        (Authenticate(TOKENS, public=["/shop.v1.Orders/{Get,Lost}"]), "fits no method"),
        (Authorize({"/shop.v1.Orders/get": anyone}), "Authorize: the row '/shop.v1.Orders/get' fits no method"),
        (Authorize(anyone, public=["/shop.v2.*/*"]), "Authorize: public '/shop.v2.*/*' fits no method"),
        (chain(when("*", Authorize({"/x.Y/*": anyone}))), "Authorize: the row '/x.Y/*' fits no method"),
    ],
)
def test_a_row_that_fits_no_method_is_a_fault(interceptor: Interceptor, complaint: str) -> None:
    """Each alternative of its braces, too; and it says what there is."""
    told = faults(interceptor)

    assert complaint in told
    assert "it serves /shop.v1.Orders/" in told


def test_every_fault_is_told() -> None:
    """Of all interceptors."""
    told = faults(Authenticate(TOKENS, public="/a.B/C"), Authorize({"/d.E/F": anyone, "/g.H/I": anyone}))

    assert told.count("fits no method") == 3


def test_a_when_narrows_the_methods() -> None:
    """A row for a method that the interceptor never sees is one that decides nothing."""
    assert "fits no method" in faults(when("/shop.v1.Orders/Place", Authorize({"/shop.v1.Orders/Get": anyone})))


def test_a_generic_handler_may_serve_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Then it is a warning."""
    assert not faults(Authorize({"/a.B/C": anyone}), generic=True)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "unless a generic handler serves it" in record.getMessage()


def test_grpcs_own_generic_handlers_are_tables() -> None:
    """As generated code registers them; others are not, and may serve anything."""

    class Anything(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> None:
            return None

    registered = Registered(asyncio=True)
    registered.add_generic([Echo().handlers(asyncio=False)])
    served = registered.served()
    registered.add_generic([Anything()])

    assert {(method.full_name, method.kind) for method in served.methods} == {
        (f"/interpose.testing.Echo/{kind.value}", kind) for kind in Kind
    }
    assert not served.generic and served.asyncio
    assert registered.served().generic


# --- real servers -----------------------------------------------------------------------------------------------------

RIGHT = Authorize({"/interpose.testing.Echo/*": anyone})
WRONG = Authorize({"/interpose.testing.Echo/Unary": anyone})
COMPLAINT = r"'/interpose.testing.Echo/Unary' fits no method of this server: it serves"


def test_a_server_does_not_start_with_a_wrong_table() -> None:
    """One that is wrapped knows its methods; with a right table it starts."""
    with ThreadPoolExecutor(1) as threads:
        for authorize in (RIGHT, WRONG):
            server = intercept_server(grpc.server(threads), authorize)
            server.add_generic_rpc_handlers((Echo().handlers(asyncio=False),))
            with nullcontext() if authorize is RIGHT else pytest.raises(ValueError, match=COMPLAINT):
                server.start()
            server.stop(None).wait()


@pytest.mark.parametrize("plain", [False, True])
async def test_nor_does_an_asyncio_server(plain: bool) -> None:
    """Whatever its handlers are; registered methods are known as well."""
    for authorize in (RIGHT, WRONG):
        server = intercept_server(grpc.aio.server(), authorize)
        handlers = Echo().handlers(asyncio=True, plain=plain)
        server.add_generic_rpc_handlers((handlers,))
        table = {name.rpartition("/")[2]: handler for name, handler in vars(handlers)["_method_handlers"].items()}
        server.add_registered_method_handlers("interpose.testing.Echo", table)
        with nullcontext() if authorize is RIGHT else pytest.raises(ValueError, match=COMPLAINT):
            await server.start()
        await server.stop(None)
