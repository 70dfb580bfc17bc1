"""`python -m bench.tokens`: what `Jwt` costs, beside PyJWT's own `jwt.decode`.

Both are timed in turns, slice by slice, and the best slice counts, as for `bench.limits`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.limits import Loop, best, verdict
from interpose._identity import Credentials
from interpose.contrib.jwt import Jwt
from interpose.testing import incoming

REPEATED = 1 / 8
"""Of `jwt.decode`, for a token that was checked before."""

FIRST = 1.15
"""Of `jwt.decode`, for one that was not."""

TIMES = 20  # tokens in one slice

WANTED = {"issuer": "https://id.example", "audience": "orders"}


def loops() -> dict[str, Loop]:
    """An RS256 token with the claims that access tokens have (RFC 9068)."""
    key = rsa.generate_private_key(65537, 2048)
    public: Any = key.public_key()
    now = int(time.time())
    claims = {"sub": "ann", "iss": WANTED["issuer"], "aud": WANTED["audience"], "iat": now, "exp": now + 3600}
    token = jwt.encode({**claims, "scope": "orders.read orders.write"}, key, "RS256", {"kid": "one"})
    credentials = Credentials(incoming(metadata=[("authorization", f"Bearer {token}")]), len(token))
    keeping = Jwt({"one": public}, algorithms=["RS256"], **WANTED)
    forgetful = Jwt({"one": public}, algorithms=["RS256"], keep=0, **WANTED)

    def decode(times: int) -> None:
        for _ in range(times):
            jwt.decode(token, public, algorithms=["RS256"], **WANTED)

    def first(times: int) -> None:
        for _ in range(times):
            ended(forgetful(credentials))

    def repeated(times: int) -> None:
        for _ in range(times):
            keeping(credentials)

    ended(keeping(credentials))
    return {"jwt.decode": decode, "first": first, "repeated": repeated}


def ended(found: Any) -> Any:
    """What a verifier gives, when nothing has to be waited for."""
    if isinstance(found, Generator):
        try:
            next(found)
        except StopIteration as end:
            return end.value
    return found


def main() -> None:
    """Print the table."""
    took = best(loops(), TIMES)
    print(f"Beside jwt.decode of PyJWT {jwt.__version__}:\n\n| | | | |\n| --- | ---: | ---: | --- |")
    print(verdict("a token that was checked before", took["repeated"], took["jwt.decode"], REPEATED))
    print(verdict("a first one", took["first"], took["jwt.decode"], FIRST))


if __name__ == "__main__":
    main()
