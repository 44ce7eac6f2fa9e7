"""`python -m rowcron` is the command `rowcron`."""

from __future__ import annotations

from rowcron.cli import main

main()
