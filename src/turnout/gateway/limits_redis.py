"""This module counts spend and rates in Redis: one count for workers on many hosts.

Every step is one Lua script, which Redis runs whole, so no two of them see the same remainder. What a request
waits for has a time limit. A Redis that is away refuses the requests of keys with a limit (503), unless the
settings let them pass uncounted; no other request notices.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, final

from turnout.core.clock import Clock
from turnout.core.errors import sentence
from turnout.gateway.errors import ApiError
from turnout.gateway.limits import Limits, Rate, Spend, TooFast

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

_KEEP_S = 60 * 86_400
"""Seconds after its last change that a period's spend is kept: longer than any period but `total`."""
_TRIES = 5

_RESERVE = """
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent') or '0')
local held = tonumber(redis.call('HGET', KEYS[1], 'held') or '0')
local left = tonumber(ARGV[1]) - spent - held
local most = left * (1 + 1e-12) + 1e-15
local best = nil
for i = 3, #ARGV do
  local usd = tonumber(ARGV[i])
  if usd < 0 then
    usd = left > 0 and left or nil
  elseif usd > most then
    usd = nil
  end
  if usd and (not best or usd > best) then best = usd end
end
if best then
  redis.call('HSET', KEYS[1], 'held', string.format('%.17g', held + best))
  if ARGV[2] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
end
local function text(usd) return usd and string.format('%.17g', usd) or '' end
return {text(best), text(spent), text(held)}
"""

_SETTLE = """
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', 3600) then return 0 end
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent') or '0') + tonumber(ARGV[2])
local held = math.max(0, tonumber(redis.call('HGET', KEYS[1], 'held') or '0') - tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], 'spent', string.format('%.17g', spent), 'held', string.format('%.17g', held))
if ARGV[3] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return 1
"""

_TAKE = """
local now = tonumber(ARGV[1])
local levels, worst, at = {}, -1, 0
for i = 1, #KEYS do
  local per_min, amount = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local level = tonumber(redis.call('HGET', KEYS[i], 'level') or ARGV[2 * i])
  local time = tonumber(redis.call('HGET', KEYS[i], 'time') or ARGV[1])
  level = math.min(per_min, level + math.max(0, now - time) * per_min / 60)
  levels[i] = level
  local needed = math.min(amount, per_min)
  local wait = (needed - level) * 60 / per_min
  if level < needed and wait > worst then worst, at = wait, i end
end
if at > 0 then
  return {tostring(at), string.format('%.17g', levels[at]), string.format('%.17g', worst)}
end
for i = 1, #KEYS do
  local level = levels[i] - tonumber(ARGV[2 * i + 1])
  redis.call('HSET', KEYS[i], 'level', string.format('%.17g', level), 'time', ARGV[1])
  redis.call('EXPIRE', KEYS[i], 3600)
end
return {'0', '0', '0'}
"""

_GIVE = """
local now, per_min = tonumber(ARGV[1]), tonumber(ARGV[2])
local level = tonumber(redis.call('HGET', KEYS[1], 'level') or ARGV[2])
local time = tonumber(redis.call('HGET', KEYS[1], 'time') or ARGV[1])
level = math.min(per_min, level + math.max(0, now - time) * per_min / 60) + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'level', string.format('%.17g', math.min(per_min, level)), 'time', ARGV[1])
redis.call('EXPIRE', KEYS[1], 3600)
return 1
"""


@final
class RedisLimits(Limits):
    """Counts in a Redis.

    Parameters
    ----------
    client:
        An asyncio client that decodes nothing.
    clock:
        What time it is.
    timeout_s:
        Longest wait of a request for an answer of Redis.
    fail_open:
        Whether requests pass uncounted while Redis is away.
    prefix:
        How the names of its entries begin.
    """

    def __init__(
        self,
        *,
        client: Redis,
        clock: Clock,
        timeout_s: float = 0.5,
        fail_open: bool = False,
        prefix: str = "turnout",
    ) -> None:
        self.client = client
        self.clock = clock
        self.timeout_s = timeout_s
        self.fail_open = fail_open
        self.prefix = prefix
        scripts = (_RESERVE, _SETTLE, _TAKE, _GIVE)
        self._reserve, self._settle, self._take, self._give = map(client.register_script, scripts)
        self._late: dict[str, set[asyncio.Task[None]]] = {}

    async def take(self, key: str, rates: Sequence[Rate]) -> TooFast | None:
        """Take from every bucket, or from none."""
        values: list[Any] = [repr(self.clock.now_s())]
        for rate in rates:
            values += [rate.per_min, repr(rate.amount)]
        names = [self._bucket(key, rate) for rate in rates]
        found = await self._ask(key, lambda: self._take(keys=names, args=values))
        if found is None or int(found[0]) == 0:
            return None
        rate = rates[int(found[0]) - 1]
        return TooFast(
            kind=rate.kind,
            per_min=rate.per_min,
            left=max(0.0, float(found[1])),
            wait_s=float(found[2]),
        )

    async def reserve(
        self, key: str, period: str, *, budget_usd: float, wanted_usd: Sequence[float]
    ) -> tuple[float | None, Spend]:
        """Reserve the largest of the sums that is left."""
        wanted = ["-1" if math.isinf(usd) else repr(usd) for usd in wanted_usd]
        values: list[str | int] = [repr(budget_usd), _keep_s(period), *wanted]
        found = await self._ask(key, lambda: self._reserve(keys=[self._name(key, period)], args=values))
        if found is None:
            finite = [usd for usd in wanted_usd if not math.isinf(usd)]
            return max(finite, default=budget_usd), Spend()
        best, spent, held = found
        before = Spend(spent_usd=float(spent), held_usd=float(held))
        return (float(best) if best else None), before

    def settle(self, key: str, period: str, *, held_usd: float, usd: float) -> None:
        """Put what was spent in the place of what was reserved."""
        values: list[str | int] = [repr(held_usd), repr(usd), _keep_s(period)]
        # Named, so that a second try after an answer that was lost on its way changes nothing.
        names = [self._name(key, period), f"{self.prefix}:settled:{secrets.token_hex(8)}"]
        self._later(key, lambda: self._settle(keys=names, args=values))

    def give_back(self, key: str, rate: Rate) -> None:
        """Put an amount back into a bucket."""
        values: list[str | int] = [repr(self.clock.now_s()), rate.per_min, repr(rate.amount)]
        self._later(key, lambda: self._give(keys=[self._bucket(key, rate)], args=values))

    async def spend(self, key: str, period: str) -> Spend:
        """Return what a key has spent."""
        await self._finish(key)
        spent, held = await self.client.hmget(self._name(key, period), ["spent", "held"])
        return Spend(spent_usd=float(spent or 0), held_usd=float(held or 0))

    async def close(self) -> None:
        """Finish what was begun, and close the connections."""
        for key in list(self._late):
            await self._finish(key)
        await self.client.aclose()

    async def _finish(self, key: str) -> None:
        """Wait for what was begun for a key, so that a client finds its own refund."""
        if late := self._late.get(key):
            await asyncio.gather(*late)

    async def _ask(self, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return what Redis says in time; None where it is away and requests may pass uncounted."""
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(self.timeout_s):
                await self._finish(key)
                return await call()
        except (RedisError, OSError, TimeoutError) as error:
            if self.fail_open:
                logger.warning("the count of spend and rates is away, and requests pass uncounted: %s", error)
                return None
            raise _away() from error

    def _later(self, key: str, call: Callable[[], Awaitable[Any]]) -> None:
        task = asyncio.get_running_loop().create_task(self._insist(call))
        late = self._late.setdefault(key, set())
        late.add(task)
        task.add_done_callback(lambda done: self._drop(key, done))

    def _drop(self, key: str, task: asyncio.Task[None]) -> None:
        late = self._late.get(key, set())
        late.discard(task)
        if not late:
            self._late.pop(key, None)

    async def _insist(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Try some times; what is never settled stays reserved, which errs on the side of the budget."""
        from redis.exceptions import RedisError

        for number in range(_TRIES):
            try:
                async with asyncio.timeout(self.timeout_s):
                    await call()
                return
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("the count of spend and rates is away: %s", error)
                await asyncio.sleep(0.1 * 2**number)

    def _name(self, key: str, period: str) -> str:
        return f"{self.prefix}:spend:{period}:{key}"

    def _bucket(self, key: str, rate: Rate) -> str:
        return f"{self.prefix}:rate:{rate.kind}:{key}"


def _keep_s(period: str) -> int:
    return 0 if period == "total" else _KEEP_S


def _away() -> ApiError:
    message = sentence(
        "the count of spend and rates cannot be reached",
        allowed="requests of keys with a limit while Redis answers",
        do="ask again; see shared.redis, or shared.fail_open to let requests pass uncounted",
    )
    headers = [(b"retry-after", b"1")]
    return ApiError(503, message, code="limits_unavailable", kind="server_error", headers=headers)
