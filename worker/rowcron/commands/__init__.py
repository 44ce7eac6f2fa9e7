"""The subcommands of `rowcron`, one module a noun; each is imported only when it is called."""

from __future__ import annotations
