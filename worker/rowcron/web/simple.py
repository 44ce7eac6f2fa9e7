"""The simple types that bodies and answers share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

Int4 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int8 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Instant = Annotated[
    str,
    Field(
        description="An instant; ISO 8601, or `infinity`.", examples=["2030-12-24T18:00:00+00:00"]
    ),
]
Length = Annotated[
    str,
    Field(description="A length of time, as PostgreSQL reads intervals.", examples=["10 seconds"]),
]
Args = dict[str, JsonValue] | list[JsonValue] | None
