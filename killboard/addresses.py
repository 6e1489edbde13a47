"""Where a request comes from, for whatever counts by address."""

from django.conf import settings
from django.http import HttpRequest

from realtime.limits import client_address


def address_of(request: HttpRequest) -> str:
    """The peer's, or what the outermost of our proxies saw."""
    peer, forwarded = request.META.get("REMOTE_ADDR", ""), request.headers.get("X-Forwarded-For")
    return client_address(peer, [forwarded] if forwarded else [], settings.TRUSTED_PROXIES)
