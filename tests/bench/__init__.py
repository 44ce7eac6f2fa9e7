"""Benchmarks: the same work in turn for rowcron and its peers. `make bench`; see `__main__.py`."""
