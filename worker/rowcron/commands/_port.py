"""An option for a port, in an environment in which Kubernetes has its say."""

from __future__ import annotations

import click


class PortOption(click.Option):
    """Passes over what Kubernetes sets for a Service of that name: ROWCRON_PORT=tcp://10.0.0.1:80.

    Source: kubernetes.io/docs/concepts/services-networking/service, "Environment variables".
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the number that somebody meant for us."""
        value = super().resolve_envvar_value(ctx)
        return None if value is not None and "://" in value else value
