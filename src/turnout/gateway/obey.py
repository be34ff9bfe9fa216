"""This module is the step between reading a request and deciding: what rules say of it takes force."""

from __future__ import annotations

from turnout.gateway.exchange import Exchange
from turnout.gateway.rewrite import read_once, refusal, rewritten_beside
from turnout.gateway.rules import Rules
from turnout.gateway.signals.base import Facts


async def obey(rules: Rules, exchange: Exchange) -> None:
    """Put in force what holds for a request: it is rewritten, or refused with an `ApiError` (403)."""
    exchange.request = await read_once(exchange.request)
    tenant = None if exchange.account.key is None else exchange.account.tenant
    ruling, _ = await rules.find(Facts(request=exchange.request, headers=exchange.headers, tenant=tenant))
    if ruling is None:
        return
    exchange.ruling = ruling
    exchange.account.rule = ruling.name
    exchange.account.added_headers = ruling.response_headers
    # Before a refusal, too: what is remembered of the request must not hold what was to be taken out.
    exchange.unruled = exchange.request
    exchange.request = await rewritten_beside(exchange.request, ruling.rules, exchange.protocol)
    for rule in ruling.rules:
        if rule.block is not None:
            raise refusal(rule)
