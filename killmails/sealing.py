"""Tokens at rest: encrypted with the keys in TOKEN_KEYS, of which the first encrypts and all decrypt.

What is sealed is a text that says nothing; what is opened never goes into a message, a log or a page.
"""

from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from killmails.errors import SealBroken


def seal(token: str) -> str:
    """ "" stays ""; the same token looks different each time."""
    return _keys(tuple(settings.TOKEN_KEYS)).encrypt(token.encode()).decode() if token else ""


def unseal(sealed: str) -> str:
    """Raises SealBroken where none of the keys fits."""
    try:
        return _keys(tuple(settings.TOKEN_KEYS)).decrypt(sealed.encode()).decode() if sealed else ""
    except InvalidToken as error:
        raise SealBroken("a token was encrypted with a key that TOKEN_KEYS does not have") from error


def reseal(sealed: str) -> str:
    """The same token under the first key. Raises SealBroken."""
    try:
        return _keys(tuple(settings.TOKEN_KEYS)).rotate(sealed.encode()).decode() if sealed else ""
    except InvalidToken as error:
        raise SealBroken("a token was encrypted with a key that TOKEN_KEYS does not have") from error


@lru_cache(maxsize=4)
def _keys(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])
