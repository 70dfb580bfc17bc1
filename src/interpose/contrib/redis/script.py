"""The script that decides, and the question that is put to it."""

from __future__ import annotations

import hashlib
from typing import Any

from interpose.mechanisms.rate import Rate

# GCRA for all limits of a call at once, as in interpose.mechanisms.gcra. A time is two whole numbers, microseconds and a
# rest in ticks of them: Lua's numbers are exact up to 2^53 only, and `tostring` rounds at 14 digits. `at` is when it was
# written: if that lies ahead, the server's clock has gone back, and the time with it. A script that fails has written
# nothing, for out of memory it fails at its first write.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function later(whole, rest, other, other_rest)
  if whole > other or (whole == other and rest > other_rest) then return whole, rest end
  return other, other_rest
end

local limits, early, wait = {}, {}, 0
for i, key in ipairs(KEYS) do
  local parts, step, step_rest, first, first_rest = string.match(ARGV[i], '(%S+) (%S+) (%S+) (%S+) (%S+)')
  local limit = {parts = tonumber(parts), step = tonumber(step), step_rest = tonumber(step_rest),
                 first = tonumber(first), first_rest = tonumber(first_rest)}
  local whole, rest = limit.first, limit.first_rest
  local kept = redis.call('GET', key)
  local next, part, at = string.match(kept or '', '^(%d+) (%d+) (%d+)$')
  if next then
    whole, rest = later(whole, rest, tonumber(next) - math.max(tonumber(at), now), tonumber(part))
  end
  limit.whole, limit.rest, limits[i] = whole, rest, limit
  if rest > 0 then whole = whole + 1 end
  early[i] = whole
  if whole > wait then wait = whole end
end

if wait <= tonumber(ARGV[#ARGV]) then
  for i, key in ipairs(KEYS) do
    local limit = limits[i]
    local whole, rest = later(limit.first, limit.first_rest, limit.whole - wait, limit.rest)
    whole, rest = whole + wait + limit.step, rest + limit.step_rest
    if rest >= limit.parts then whole, rest = whole + 1, rest - limit.parts end
    local kept = string.format('%.0f %.0f %.0f', now + whole, rest, now)
    -- After that time it is as good as none.
    local lasts = string.format('%.0f', math.floor((whole - limit.first) / 1000) + 1)
    redis.call('SET', key, kept, 'PX', lasts)
  end
end
return early
"""
SHA = hashlib.sha1(SCRIPT.encode()).hexdigest()  # noqa: S324  by it Redis knows a script


class Question:
    """The script with its arguments. count: of how many limits. packed: as it is sent."""

    __slots__ = ("arguments", "count", "packed")

    def __init__(self, count: int, arguments: tuple[Any, ...]) -> None:
        self.count = count
        self.arguments = arguments
        self.packed: Any = None

    def pack(self, connection: Any) -> Any:
        """As it is sent; made once."""
        self.packed = connection.pack_command("EVALSHA", SHA, *self.arguments)
        return self.packed


def numbers_of(rate: Rate) -> str:
    """A rate as the script takes it: ticks of a microsecond; step and earliest time as microseconds and ticks."""
    parts, step = rate.ticks(10**6)
    return " ".join(map(str, [parts, *divmod(step, parts), *divmod(-(rate.at_once - 1) * step, parts)]))
