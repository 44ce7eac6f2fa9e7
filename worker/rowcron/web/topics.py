"""What open pages show, section by section, and how it is told to them."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass, field


@dataclass
class Topic:
    """What one sort of page shows: its sections, each with the version in which it changed."""

    sections: dict[str, tuple[int, str]] = field(default_factory=dict)
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    viewers: int = 0
    mark: str | None = None
    told: float = 0.0  # when it was last told anew
    nonce: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def edition(self) -> str:
        """What a page carries that shows the present version."""
        return f"{self.nonce}.{self.version}"

    def seen_by(self, edition: str) -> int:
        """Return the version that a page with this edition shows; 0 if it is not of this topic."""
        nonce, _, version = edition.partition(".")
        return int(version) if nonce == self.nonce and version.isdecimal() else 0

    def show(self, sections: dict[str, str], *, anew: bool = False) -> None:
        """Take over what has changed, or all of it `anew`, and wake those who look."""
        fresh = {
            name: html
            for name, html in sections.items()
            if anew or self.sections.get(name, (0, None))[1] != html
        }
        if anew:
            self.sections = {}
        if fresh:
            self.version += 1
            self.sections |= {name: (self.version, html) for name, html in fresh.items()}
            self.changed.set()
            self.changed = asyncio.Event()

    def since(self, version: int) -> list[tuple[str, str]]:
        """Return the sections that have changed since a version."""
        return [(name, html) for name, (at, html) in self.sections.items() if at > version]


def event(name: str, text: str) -> str:
    """Return a server-sent event. Three things end a line of it, and text may hold them all."""
    lines = "".join(f"data: {line}\n" for line in re.split(r"\r\n|\r|\n", text or ""))
    return f"event: {name}\n{lines}\n"
