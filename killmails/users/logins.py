"""What a login at EVE comes to in the database."""

import logging
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models.functions import Now

from killmails.errors import NotWelcome
from killmails.models import ApiToken, Character, KillmailSync, PendingOwner, Priority, UserCharacter
from killmails.models.users import CORPORATION, OWN
from killmails.queueing import ensure_list, ring
from killmails.sealing import seal
from killmails.upstream.sso import Identity, Tokens
from killmails.users.revoking import note_unused
from killmails.withholding import schedule_all

logger = logging.getLogger(__name__)

RIGHTS = {OWN, CORPORATION}


def log_in(identity: Identity, tokens: Tokens, user_id: int | None) -> int:
    """The user: the one who is logged in already and adds a character, or whose character it is, or a new one.

    A character that has another owner than when it last logged in belongs to somebody else now. Raises NotWelcome for a
    user who may not log in; nothing is written then, but that EVE is to be told.
    """
    try:
        return _log_in(identity, tokens, user_id)
    except NotWelcome:
        note_unused(identity.character_id, seal(tokens.refresh_token or ""))
        raise


def _log_in(identity: Identity, tokens: Tokens, user_id: int | None) -> int:
    with transaction.atomic():
        known = UserCharacter.objects.select_for_update().filter(pk=identity.character_id).first()
        before = known.user_id if known is not None and known.owner_hash == identity.owner_hash else None
        user_id = user_id or before or _new_user(identity).pk
        _check_welcome(user_id)
        if known is not None:
            note_unused(known.pk, known.refresh_token)
        _write(identity, user_id, tokens)
        if known is not None and known.user_id != user_id:
            UserCharacter.objects.filter(pk=identity.character_id).update(added_at=Now())
            _move(identity.character_id, before, user_id)
        Character.objects.bulk_create([Character(pk=identity.character_id)], ignore_conflicts=True)
        Character.objects.filter(pk=identity.character_id, name=None).update(name=identity.name)
        if tokens.refresh_token and OWN in identity.scopes:
            ensure_list(KillmailSync.Kind.CHARACTER, identity.character_id, Priority.LOGIN)
        ring()
    logger.info("Character %d has logged in, with %d rights.", identity.character_id, len(identity.scopes & RIGHTS))
    return int(user_id)


def _check_welcome(user_id: int) -> None:
    """Who runs the board logs in with a password: EVE's word is not to open the admin."""
    user = get_user_model().objects.get(pk=user_id)
    if not user.is_active or user.is_staff or user.is_superuser:
        raise NotWelcome(f"user {user_id} may not log in with EVE")


def _move(character_id: int, before: int | None, user_id: int) -> None:
    """To another user: of the same person, who was `before`, or of a new owner (None), who has no part in what was."""
    lists = KillmailSync.objects.filter(kind=KillmailSync.Kind.CHARACTER, eve_id=character_id)
    lists.update(full=True, etag="", next_page=1, newest_on_the_way=0)  # so that the new one is told of it all
    if before is None or UserCharacter.objects.filter(user=before).exists():
        return
    # Nobody can log in as the old one any more: all that they brought goes along.
    owners = PendingOwner.objects.filter(user=before)
    moved = [PendingOwner(pending_id=id_, user_id=user_id) for id_ in owners.values_list("pending", flat=True)]
    PendingOwner.objects.bulk_create(moved, ignore_conflicts=True)
    owners.delete()
    ApiToken.objects.filter(user=before).delete()
    schedule_all(user_id)


def _new_user(identity: Identity) -> AbstractBaseUser:
    """No password, no rights; the name only has to be free."""
    users = get_user_model()
    owner = f"{identity.character_id}-{identity.owner_hash}"[:150]
    user, made = users.objects.get_or_create(username=owner)
    if made:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


def _write(identity: Identity, user_id: int, tokens: Tokens) -> None:
    """Tokens are kept where they give a right."""
    refresh_token = tokens.refresh_token if identity.scopes & RIGHTS else ""
    if not refresh_token:
        note_unused(identity.character_id, seal(tokens.refresh_token or ""))
    columns = {
        "user_id": user_id,
        "name": identity.name,
        "owner_hash": identity.owner_hash,
        "scopes": sorted(identity.scopes),
        "state": UserCharacter.State.READY,
        "reason": "",
        "refresh_token": seal(refresh_token or ""),
        "access_token": seal(tokens.access_token) if refresh_token else "",
        "access_expires_at": Now() + timedelta(seconds=tokens.expires_in),
        "refreshing_until": None,
        "refused_token": "",
        "corporation_at": None,
        "reads_corporation": CORPORATION in identity.scopes and bool(refresh_token),
        "director_of": None,
        "not_director": False,
        "changed_at": Now(),
    }
    UserCharacter.objects.bulk_create([UserCharacter(pk=identity.character_id, user_id=user_id)], ignore_conflicts=True)
    UserCharacter.objects.filter(pk=identity.character_id).update(**columns)
