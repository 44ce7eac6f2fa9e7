"""Whoever signs in often ends sessions of its own role, and of no other."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from rowcron.web import sessions
from web.site import Site
from web.test_auth import me


def test_whoever_signs_in_often_signs_out_itself_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST", 4)
    with ExitStack() as stack:
        vic = stack.enter_context(site.sign_in("vic"))
        ada = [stack.enter_context(site.sign_in("ada")) for _ in range(3)]
        assert me(ada[0]) == "ada"  # now the second is the idlest
        ada += [stack.enter_context(site.sign_in("ada")) for _ in range(3)]
        assert me(vic) == "vic"
        assert [client.get("/api/me").status_code for client in ada] == [200, 401, 401] + [200] * 3
