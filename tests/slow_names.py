"""An app for workers whose names under `.silent` take as long as if their servers said nothing."""

from __future__ import annotations

import socket
import time
from typing import Any

_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
    """Look up a name, some of them slowly and in vain."""
    if str(host).endswith(".silent"):
        time.sleep(60)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
    return _getaddrinfo(host, *args, **options)


socket.getaddrinfo = getaddrinfo
