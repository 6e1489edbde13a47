"""EVE's SSO and zKillboard's site as this process asks them; nothing else here knows the settings."""

import threading
from functools import lru_cache

from django.conf import settings

from killmails.upstream.sso import Sso
from killmails.upstream.zkillboard import ZkillboardSite

_of_thread = threading.local()


def sso() -> Sso | None:
    """The client of this process; None where nobody can log in."""
    if not settings.EVE_CLIENT_ID:
        return None
    return _client(settings.SSO_URL, settings.EVE_CLIENT_ID, settings.EVE_CLIENT_SECRET, settings.EVE_CALLBACK_URL)


@lru_cache(maxsize=4)
def _client(url: str, client_id: str, secret: str, callback: str) -> Sso:
    return Sso(url, client_id, secret, callback, settings.CONTACT)


def site() -> ZkillboardSite:
    """The client of this thread."""
    if not hasattr(_of_thread, "site"):
        _of_thread.site = ZkillboardSite(settings.ZKILLBOARD_URL, settings.CONTACT)
    client: ZkillboardSite = _of_thread.site
    return client
