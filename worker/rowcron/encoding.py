"""What every connection speaks, whatever its database is encoded in: UTF-8.

The server converts. What it cannot store it refuses, which is an error of that value alone. A
SQL_ASCII database converts nothing and may hold any bytes; of those that are no UTF-8 it would
refuse to send anything, a whole claim for one job's name. So there the bytes are sent as they are,
and shown escaped.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import BaseConnection
from psycopg.types.string import TextBinaryLoader, TextLoader

CLIENT: Final = "utf8"  # libpq's client_encoding; it has the better of a role's and PGOPTIONS'
AS_THEY_ARE: Final = "sql_ascii"


def _text(data: Any) -> str:
    return bytes(data).decode("utf-8", "backslashreplace")


class _Text(TextLoader):
    def load(self, data: Any) -> str:
        return _text(data)


class _BinaryText(TextBinaryLoader):
    def load(self, data: Any) -> str:
        return _text(data)


def must_be_raw(connection: BaseConnection[Any]) -> bool:
    """Return whether to connect once more, with the client_encoding `AS_THEY_ARE`.

    To SET it would not do: RESET ALL goes back to what was said when the connection was made.
    """
    parameter = connection.info.parameter_status
    if parameter("server_encoding") != "SQL_ASCII":
        return False
    if parameter("client_encoding") != "SQL_ASCII":
        return True
    for name in ("text", "varchar", "name"):
        connection.adapters.register_loader(name, _Text)
        connection.adapters.register_loader(name, _BinaryText)
    return False


def spoken(connection: BaseConnection[Any]) -> str:
    """Return Python's name of what is spoken now; SQL_ASCII sends and takes what it is given."""
    encoding = connection.info.encoding
    return "utf-8" if encoding == "ascii" else encoding
