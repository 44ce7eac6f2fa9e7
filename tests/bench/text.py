"""Figures as a reader wants them."""

from __future__ import annotations


def figure(value: float) -> str:
    """With as many digits as mean something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
