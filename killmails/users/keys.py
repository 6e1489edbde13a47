"""Encrypting tokens anew, while workers go on refreshing them."""

import time
from contextlib import suppress

from killmails.errors import SealBroken
from killmails.models import UnusedGrant, UserCharacter
from killmails.sealing import reseal
from killmails.users.grants import free

TOKENS = ("refresh_token", "access_token")
LOOK = 0.1  # seconds


def rotate() -> tuple[int, int]:
    """How many characters' tokens are under the first key now, and how many fit no key. Safe to run twice, or in part.

    Each by compare-and-set, and once more where somebody has refreshed meanwhile.
    """
    rotated = lost = 0
    for pk in UserCharacter.objects.exclude(refresh_token="").order_by("pk").values_list("pk", flat=True):
        try:
            rotated += _rotate(pk)
        except SealBroken:
            lost += 1
    _rotate_unused()
    return rotated, lost


def _rotate_unused() -> None:
    """Of the grants that EVE has still to be told of. One that fits no key costs nobody anything."""
    for row in UnusedGrant.objects.all():
        with suppress(SealBroken):
            same = UnusedGrant.objects.filter(pk=row.pk, refresh_token=row.refresh_token)
            same.update(refresh_token=reseal(row.refresh_token))


def _rotate(pk: int) -> bool:
    """False where the character was removed meanwhile.

    Not while it is refreshed: whoever does that finds the row by the token as it lay there, and EVE's new token would
    have no row to go to.
    """
    while row := UserCharacter.objects.filter(pk=pk).values(*TOKENS).first():
        anew = {name: reseal(sealed) for name, sealed in row.items()}
        if UserCharacter.objects.filter(free(), pk=pk, **row).update(**anew):
            return True
        time.sleep(LOOK)
    return False
