#!/bin/sh
# purgatory 3.0.1: a breaker that is half open lets all callers through, and not one of them to try.
#
# A breaker opens at the first failure. When its time is over, ten tasks come at once. Each finds it half open and goes on to the
# service, which has just been down: the herd that a half-open state is there to hold back.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import asyncio

from purgatory import AsyncCircuitBreakerFactory

TASKS = 10


async def main():
    breakers = AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=0.1)
    try:
        async with await breakers.get_breaker("stock"):
            raise OSError("down")
    except OSError:
        pass
    await asyncio.sleep(0.2)

    passed, answer = 0, asyncio.Event()

    async def ask():
        nonlocal passed
        async with await breakers.get_breaker("stock"):
            passed += 1
            await answer.wait()

    tasks = [asyncio.create_task(ask()) for _ in range(TASKS)]
    await asyncio.sleep(0.2)
    answer.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(passed, "of", TASKS, "calls went to a service that had not answered yet")


asyncio.run(main())
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check purgatory==3.0.1 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "10 of 10 calls went to a service that had not answered yet" ] || { echo "3.0.1 has changed"; exit 1; }
echo "As described"
