"""Keyed digests, for what the trail should be able to compare but not to name."""

from __future__ import annotations

import hashlib
import hmac

_DIGEST_CHARS = 32  # 128 bits: no two addresses of a site share one


def keyed_digest(key: str | bytes, text: str) -> str:
    """Returns a digest of `text` that only a holder of `key` can compute.

    The same text has the same digest, so that events from one address can be recognised as such.
    Without a key all IPv4 addresses could be tried in a minute. Raises ValueError for an empty one.
    """
    secret = key.encode() if isinstance(key, str) else key
    if not secret:
        raise ValueError("a digest needs a key: without one the text can be found by trying")
    # A key of its own: the application signs other things with this one.
    own = hmac.digest(secret, b"flask_logd digest", "sha256")
    made = hmac.new(own, text.encode("utf-8", "backslashreplace"), hashlib.sha256)
    return made.hexdigest()[:_DIGEST_CHARS]
