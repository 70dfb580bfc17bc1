#!/bin/sh
# pybreaker 1.4.1: its breaker lets one thread at a time through, also while it is closed.
#
# `call` holds the breaker's lock while the function runs. Ten threads that call a healthy service through one breaker, which is
# how its page shows it, wait for one another: never more than one call is under way. Beside a pool of server threads the breaker is
# a limit of one.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/probe.py" <<'PROBE'
import threading
import time

from pybreaker import CircuitBreaker

THREADS = 10
under_way = most = 0
lock = threading.Lock()


def ask():
    """A healthy service that takes a moment; how many ask it at once is noted."""
    global under_way, most
    with lock:
        under_way += 1
        most = max(most, under_way)
    time.sleep(0.05)
    with lock:
        under_way -= 1


def most_at_once(call):
    global most
    most = 0
    threads = [threading.Thread(target=call) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


breaker = CircuitBreaker()
print("without a breaker, more than one at once:", most_at_once(ask) > 1)
print("with a breaker:", most_at_once(lambda: breaker.call(ask)), "at once; it is", breaker.current_state)
PROBE

python3 -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install --quiet --disable-pip-version-check pybreaker==1.4.1 2>"$folder/log" ||
    { cat "$folder/log"; exit 1; }
seen=$("$folder/environment/bin/python" "$folder/probe.py")
printf '%s\n' "$seen"
[ "$seen" = "without a breaker, more than one at once: True
with a breaker: 1 at once; it is closed" ] || { echo "1.4.1 has changed"; exit 1; }
echo "As described"
