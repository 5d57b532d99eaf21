"""Secrets in addresses: keys before an @, tokens and signatures in a query.

Whatever is shown, logged or kept in a record passes here; the storage itself gets the whole.
"""

from __future__ import annotations

import re
from typing import Any

from featgan.errors import UserError

HIDDEN = "***"

# After `://` anything before an @ is one, and `key:secret` up to the last @, as a secret may hold
# slashes, quotes and @; in a path or an error's text only `key:secret@` is one.
_USER = re.compile(
    r"(?<=://)[^/\s:]+(?=@)|(?<=://)[^\s/'\"@:]+:(?!//)\S*(?=@)|(?<![^\s'\"(\[])[^\s/'\"@:]+:(?!//)\S+(?=@)"
)
_QUERY = re.compile(
    r"((?<=[?&#;])[\w.-]*(?:token|key|secret|sign|sig|auth|pass|pwd|credential)[\w.-]*"
    r"|\b(?:AccountKey|SharedAccessSignature|aws_[a-z_]*(?:key|token)[a-z_]*))=[^&\s'\"]*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """A text without the secrets of the addresses in it."""
    return _QUERY.sub(rf"\1={HIDDEN}", _USER.sub(HIDDEN, text))


def refuse_keys(what: str, address: str) -> None:
    """Raise UserError where the address of a bucket holds a secret: its clients take none there."""
    if redacted(address) != address:
        raise UserError(
            f"{what}: {redacted(address)}: a bucket's address takes no keys; put them into the "
            "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or a file of credentials"
        )


def one_line(text: str, most: int = 300) -> str:
    """A text on one line without secrets: cut after they are hidden, or half of one is shown."""
    return redacted(" ".join(text.split()))[:most]


def redacted_tree(value: Any) -> Any:
    """What JSON can hold, each text redacted."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: redacted_tree(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_tree(inner) for inner in value]
    return value
