"""Encrypting tokens anew, while workers go on refreshing them."""

from killmails.errors import SealBroken
from killmails.models import UserCharacter
from killmails.sealing import reseal

TOKENS = ("refresh_token", "access_token")


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
    return rotated, lost


def _rotate(pk: int) -> bool:
    """False where the character was removed meanwhile."""
    while row := UserCharacter.objects.filter(pk=pk).values(*TOKENS).first():
        anew = {name: reseal(sealed) for name, sealed in row.items()}
        if UserCharacter.objects.filter(pk=pk, **row).update(**anew):
            return True
    return False
