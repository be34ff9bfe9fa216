"""This module signs requests for AWS: Signature Version 4, with the headers that a JSON request has.

Amazon Web Services, "Create a signed AWS API request" (Signature Version 4 for API requests, 2024).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import final
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": 80, "https": 443}


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class AwsKeys:
    """Who signs."""

    access_key: str
    secret_key: str
    session_token: str | None = None


def signed(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    keys: AwsKeys,
    region: str,
    service: str,
    now_s: float,
) -> dict[str, str]:
    """Return the headers of a POST request with its signature; names are in lower case.

    `url` has no query, and its path is encoded already.
    """
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    day = moment[:8]
    parts = urlsplit(url)
    port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    whole = {**headers, "host": f"{parts.hostname}{port}", "x-amz-date": moment}
    if keys.session_token is not None:
        whole["x-amz-security-token"] = keys.session_token
    names = sorted(whole)
    lines = [f"{name}:{' '.join(whole[name].split())}" for name in names]
    listed = ";".join(names)
    # Every service but S3 signs the path encoded once more.
    path = quote(parts.path, safe="/~")
    request = "\n".join(["POST", path, "", *lines, "", listed, hashlib.sha256(body).hexdigest()])
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    signature = hmac.new(
        _key(keys.secret_key, day, region, service), text.encode(), hashlib.sha256
    ).hexdigest()
    credential = f"Credential={keys.access_key}/{scope}"
    whole["authorization"] = f"{_ALGORITHM} {credential}, SignedHeaders={listed}, Signature={signature}"
    return whole


@lru_cache(maxsize=64)
def _key(secret: str, *parts: str) -> bytes:
    """Return the signing key, which is one a day."""
    key = ("AWS4" + secret).encode()
    for part in [*parts, "aws4_request"]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
