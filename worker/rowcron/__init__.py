"""rowcron: insert a row, get a job. The rules live in PostgreSQL; this package is the hands."""

from __future__ import annotations

__version__ = "0.1.0"
