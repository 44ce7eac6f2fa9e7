"""The whole path on real input: pgbench's bank, every kind of job, two owners, two workers.

`world.py` is the surroundings, `jobs.py` what the owners insert, `app.py` the application, and
`compare.py` holds the ledger against croniter. `test_soak.py` is the short form; `make soak` runs
it for ten minutes on each server, with a worker killed every now and then.
"""
