"""AWS Signature Version 4 in a query, as Bedrock's short-term keys have it.

No call of this package needs one: whoever makes short-term keys of his own, for ``bearer_token=``, begins here.
botocore's ``SigV4QueryAuth`` is the oracle. Nothing here reads a clock.
"""

from __future__ import annotations

__all__ = ["presign_query"]

import hmac
from datetime import datetime

from apex_llm.protocol.sigv4 import (
    ALGORITHM,
    EMPTY_SHA256,
    TERMINATOR,
    basic_format,
    canonical_request,
    percent_encode,
    signing_key,
    string_to_sign,
)


def presign_query(
    *,
    access_key_id: str,
    secret_access_key: str,
    session_token: str | None = None,
    region: str,
    service: str,
    method: str,
    target: str,
    authority: str,
    timestamp: datetime | float,
    expires_seconds: int,
    payload_sha256: str = EMPTY_SHA256,
) -> str:
    """A query that carries its own signature: the target's, the ``X-Amz-*`` parameters, ``X-Amz-Signature``.

    Only the host is signed beside it. Bedrock's short-term keys are such a query, over
    ``POST bedrock.amazonaws.com/?Action=CallWithBearerToken``, in base64.
    """
    amz_date = basic_format(timestamp)
    date = amz_date[:8]
    scope = f"{date}/{region}/{service}/{TERMINATOR}"
    path, _, query = target.partition("?")
    parameters = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{access_key_id}/{scope}",
        "X-Amz-Date": amz_date,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if session_token:
        parameters["X-Amz-Security-Token"] = session_token
    own = "&".join([f"{name}={percent_encode(value)}" for name, value in parameters.items()])
    query = f"{query}&{own}" if query else own
    request = canonical_request(
        method=method, target=f"{path}?{query}", headers=(("host", authority),), payload_sha256=payload_sha256
    )
    key = signing_key(secret_access_key, date=date, region=region, service=service)
    text = string_to_sign(amz_date=amz_date, scope=scope, request=request)
    return f"{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"
