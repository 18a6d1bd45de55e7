"""Keyed digests of values that the trail may compare but must not contain, such as addresses."""

from __future__ import annotations

import hashlib
import hmac

_DIGEST_CHARS = 32  # 128 bits, so that no two addresses of a site have the same digest


def keyed_digest(key: str | bytes, text: str) -> str:
    """Returns a digest of `text` that only a holder of `key` can compute.

    The same text always has the same digest, so that events from one address can be recognised as
    such. Without a key all IPv4 addresses could be tried in a minute. Raises ValueError for an
    empty key.
    """
    secret = key.encode() if isinstance(key, str) else key
    if not secret:
        raise ValueError("a digest needs a key: without one the text can be found by trying")
    # The key is derived, since the application uses its key to sign other things as well.
    own = hmac.digest(secret, b"flask_logd digest", "sha256")
    made = hmac.new(own, text.encode("utf-8", "backslashreplace"), hashlib.sha256)
    return made.hexdigest()[:_DIGEST_CHARS]
