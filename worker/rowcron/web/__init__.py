"""The browser's and the programs' door: an HTTP API with Swagger UI, and a few live pages.

Like every other door it has no rule of its own. Each request acts as the role of whoever asks and
goes through the same functions, views and row security as psql does.
"""
