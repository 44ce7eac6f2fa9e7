"""The simple types that bodies, queries and answers share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue
from pydantic_core import PydanticCustomError

_ISO = re.compile(
    r"\d{4,6}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d){0,2})?)?",
    re.ASCII | re.IGNORECASE,
)


def _iso(text: str) -> str:
    """Refuse what PostgreSQL would read as it may: `tomorrow`; `01.02.2030` as of January."""
    if _ISO.fullmatch(text) is None:
        hint = {"hint": "For example 2030-12-24T18:00:00Z."}
        raise PydanticCustomError("instant", "not an instant in ISO 8601", hint)
    return text


def _iso_or_infinity(text: str) -> str:
    return text if text == "infinity" else _iso(text)


Int4 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int8 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Instant = Annotated[
    str,
    Field(description="An instant; ISO 8601, or `infinity`.", examples=["2030-12-24T18:00:00Z"]),
]
End = Annotated[Instant, AfterValidator(_iso_or_infinity)]  # as sent
Start = Annotated[
    str,
    AfterValidator(_iso),
    Field(description="An instant; ISO 8601.", examples=["2030-12-24T18:00:00Z"]),
]
Length = Annotated[
    str,
    Field(description="A length of time, as PostgreSQL reads intervals.", examples=["10 seconds"]),
]
Args = dict[str, JsonValue] | list[JsonValue] | None
