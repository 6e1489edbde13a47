"""Grants at EVE that the board uses no more: EVE is told, so that they do not live on there.

One that a newer login of the same character has replaced waits until the character has no grant here: each login is a
grant of its own, as EVE's developers say, but nothing promises that ending the old one leaves the new one alone.
Source: https://github.com/ccpgames/sso-issues/issues/7 and /8
"""

import logging
from datetime import timedelta

from django.db.models import Exists, OuterRef
from django.db.models.functions import Coalesce, Now

from killmails.errors import SealBroken, UpstreamError
from killmails.models import UnusedGrant, UserCharacter
from killmails.queueing import ring
from killmails.sealing import unseal
from killmails.upstream.sso import Sso

logger = logging.getLogger(__name__)

REVOKED_WITHIN = timedelta(hours=1)


def note_unused(character_id: int, sealed: str) -> None:
    """A worker tells EVE. `sealed`: its refresh token, encrypted; "" where there was none."""
    if sealed:
        UnusedGrant.objects.create(character_id=character_id, refresh_token=sealed)
        ring()


def revoke_unused(sso: Sso) -> None:
    """Ends them at EVE; tried again for an hour. Two workers may tell EVE the same: it does no harm."""
    here = UserCharacter.objects.filter(pk=OuterRef("character_id"), state=UserCharacter.State.READY)
    for row in UnusedGrant.objects.exclude(Exists(here.exclude(refresh_token=""))).annotate(now=Now()):
        try:
            sso.revoke(unseal(row.refresh_token))
        except (UpstreamError, SealBroken) as error:
            logger.warning("An unused grant of character %d could not be revoked: %s", row.character_id, error)
            if row.tried_at is None or row.now - row.tried_at < REVOKED_WITHIN:
                UnusedGrant.objects.filter(pk=row.pk).update(tried_at=Coalesce("tried_at", Now()))
                continue
        UnusedGrant.objects.filter(pk=row.pk).delete()
