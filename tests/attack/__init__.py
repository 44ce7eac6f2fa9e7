"""Attacks: each test shows what it tried and what stopped it, or what is possible by design."""
