"""Credentials in addresses: keys before an `@`, tokens and signatures in a query.

A sweep file with one is refused, so that none is logged or kept in a record. What commands print
is redacted all the same: libraries may repeat an address of the environment.
"""

import re

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
    """Return a text with the credentials of the addresses in it replaced."""
    return _QUERY.sub(rf"\1={HIDDEN}", _USER.sub(HIDDEN, text))
