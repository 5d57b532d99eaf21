"""The base of every settings class: frozen, strict, and closed to unknown keys.

Each room of the package declares its own settings beside the code that reads them;
the string under a field is its documentation and ends up in `docs/sweep-file.md`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings that can neither change nor hold a key, type or number nobody foresaw."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
