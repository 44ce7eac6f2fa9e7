"""Proofs under fire: real processes, killed, stopped and cut off at any instant.

Each test has a short form, which the ordinary test command runs, and a long one: `make chaos`
multiplies the figures of the long form by SIZE (`size.py`). What a proof has measured is printed.
"""
