"""Which requests are answered: those of this page, not those another web page makes in the user's browser.

A page on the internet can make a browser send requests to 127.0.0.1. It cannot forge the `Host`, `Origin` and
`Sec-Fetch-Site` headers, so these decide. An address is a sign of honesty in `Host`: DNS rebinding needs a name.
"""

import ipaddress
import socket
from email.message import Message
from urllib.parse import urlsplit


def is_loopback_host(host: str) -> bool:
    """True for localhost, 127.0.0.0/8 and ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_known_host(host: str | None) -> bool:
    """Whether a `Host` header names this machine by address, as localhost, or by its own name."""
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:
        return False
    own = socket.gethostname().lower()
    if name in ("localhost", own, f"{own}.local"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_own_page(headers: "Message[str, str]") -> bool:
    """Whether a browser says that another site's page makes this request; tools that are no browser say nothing."""
    return headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")


def may_act(headers: "Message[str, str]") -> bool:
    """Whether a request that changes something comes from this very page.

    JSON makes browsers ask first before another site may send it, and nobody here answers that question.
    """
    try:
        origin = urlsplit(headers.get("Origin", "")).netloc
    except ValueError:
        return False
    kind = headers.get("Content-Type", "").partition(";")[0].strip()
    return bool(origin) and origin == headers.get("Host") and kind == "application/json" and is_own_page(headers)
