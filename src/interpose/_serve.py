"""`serve`: a server that starts in one line, and stops without losing a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from interpose._flow import Interceptor


def serve(
    app: Any,
    *,
    stack: Sequence[Interceptor] | str = (),
    host: str = "127.0.0.1",
    port: int = 50051,
    uds: str | None = None,
    loop: Literal["auto", "none", "asyncio", "uvloop"] = "auto",
    threads: int | None = None,
    workers: int | None = None,
    reload: bool = False,
    reload_dirs: Sequence[str] = (),
    factory: bool = False,
    env_file: str | None = None,
    policy: str | None = None,
    policy_allow: Sequence[str] = (),
    policy_env: Sequence[str] = (),
    tls_key: str | None = None,
    tls_cert: str | None = None,
    tls_client_ca: str | None = None,
    health: bool = True,
    reflection: bool = True,
    channelz: bool = False,
    bare: Sequence[str] = (),
    ready: Sequence[Any] = (),
    drain_delay: float = 0.0,
    timeout_graceful_shutdown: float = 20.0,
    limit_concurrency: int | None = None,
    max_connection_age: float | None = None,
    options: Sequence[tuple[str, Any]] = (),
    log_level: str = "info",
    log_config: str | dict[str, Any] | None = None,
) -> None:
    """Serve until a signal comes, and stop without losing a call.

        def app(server):
            orders_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)

        interpose.serve(app, stack=[AccessLog(), ExceptionToStatus()], port=50051)

    app: a function that registers servicers on the server it is given, a list of servicers, or a server that is not
        started; or its name, "module:attribute". What follows a `yield` in the function is its clean-up. With
        `factory` it is a function that returns one of these.
    stack: interceptors around all of it, the first outermost; or their name. bare: which of "health", "reflection" and
        "channelz" are outside of them.
    host, port: where to listen; port 0 takes one that is free. uds: the path of a unix socket, instead.
    loop: "none" is a `grpc.server` on a pool of `threads`, "asyncio" and "uvloop" are a `grpc.aio.server`; "auto" is
        asyncio if the application, or a servicer's method, is async.
    workers: processes that share the port; needs names for app and stack. SIGHUP replaces them one after the other.
    reload: replace it when a Python file changes under `reload_dirs`, or this folder.
    env_file: variables to set before the application is imported.
    policy: a file whose section `server` is inside of `stack`, read anew at SIGHUP; see `interpose.policy.load`, also for
        `policy_allow` and `policy_env`.
    tls_key, tls_cert, tls_client_ca: files in PEM, read anew when they change. With a CA, clients need a certificate.
    health, reflection, channelz: the standard services, of the extra `server`.
    ready: functions that say whether the server is ready, or their names; a `ConcurrencyLimit` is not while it refuses. Each
        runs on a thread of its own; one that raises, or takes too long, says no.
        The health service follows them after three looks of the same opinion, one each second.
    drain_delay: seconds between NOT_SERVING and the refusal of new calls. timeout_graceful_shutdown: seconds that calls
        have then, before they are ended with UNAVAILABLE. By default 20, which fits into the 30 that Kubernetes waits.
    limit_concurrency: calls in hand at once; more are refused with UNAVAILABLE.
    max_connection_age: seconds after which clients are asked to connect anew, so that load spreads.
    options: pairs for grpc's own server. log_level, log_config: as `logging` has them.

    It returns after SIGINT or SIGTERM. A second signal shortens the drain, a third kills. If handlers do not end though
    their calls have, the process ends here.

    ValueError for bad options, or for what cannot be served (`interpose.serving.CannotServe`), before anything is
    started. SystemExit if workers cannot start, which they have explained. RuntimeError outside of the main thread, or
    if grpc's server ends by itself.
    """
    given = dict(locals())
    from interpose.serving import Options, start  # noqa: PLC0415  most programs serve nothing

    status = start(given.pop("app"), given.pop("stack"), Options(**given))
    if status:
        raise SystemExit(status)  # the workers have said why
