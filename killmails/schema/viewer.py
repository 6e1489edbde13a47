"""GraphQL: the user who asks, their characters, and the killmails that only they may see."""

from dataclasses import dataclass
from datetime import datetime

import graphene
from django.db.models import Exists, OuterRef, QuerySet

from killmails import accounts, models
from killmails.models.users import CORPORATION, OWN
from killmails.schema.callers import bad_input, user_of
from killmails.schema.types import Killmail
from killmails.withheld import load_withheld

MAX_FIRST = 100


class CharacterState(graphene.Enum):
    """Whether EVE can be asked in the name of a character."""

    READY = "READY"
    NEEDS_LOGIN = "NEEDS_LOGIN"
    SOLD = "SOLD"

    @property
    def description(self) -> str | None:
        texts = {
            "READY": "It can.",
            "NEEDS_LOGIN": "Not until it logs in again, for the `reason`.",
            "SOLD": "The character belongs to somebody else now.",
        }
        return texts[self.value] if self else None


class UserCharacter(graphene.ObjectType):
    """A character of yours."""

    id = graphene.ID(required=True, description="EVE's id.")
    name = graphene.String(required=True, description="As it was at its last login.")
    state = graphene.Field(CharacterState, required=True, description="Whether EVE can be asked in its name.")
    reason = graphene.String(description="Why not, in words.")
    own_killmails = graphene.Boolean(required=True, description="Whether it granted us its own killmails.")
    corporation_killmails = graphene.Boolean(
        required=True, description="Whether it granted us its corporation's; EVE gives them to directors only."
    )

    @staticmethod
    def resolve_reason(character: models.UserCharacter, info: graphene.ResolveInfo) -> str | None:
        return character.reason or None

    @staticmethod
    def resolve_own_killmails(character: models.UserCharacter, info: graphene.ResolveInfo) -> bool:
        return OWN in character.scopes

    @staticmethod
    def resolve_corporation_killmails(character: models.UserCharacter, info: graphene.ResolveInfo) -> bool:
        return CORPORATION in character.scopes


class Publication(graphene.ObjectType):
    """What becomes of the killmails that you bring."""

    publish = graphene.Boolean(required=True, description="Whether they are published at all.")
    delay_hours = graphene.Int(required=True, description="How long after the loss: 0, 1, 3, 8, 24 or 72 hours.")


class WithheldKillmail(graphene.ObjectType):
    """A killmail that you brought and that is not published yet: only those in whose lists it stands can see it."""

    killmail = graphene.Field(Killmail, required=True, description="As it would be published now.")
    publish_at = graphene.DateTime(description="Null: not until you, or somebody else who brought it, say so.")


class WithheldKillmails(graphene.ObjectType):
    """A page of them, highest id first."""

    nodes = graphene.List(graphene.NonNull(WithheldKillmail), required=True, description="Those of this page.")
    has_next_page = graphene.Boolean(required=True, description="Whether there are more, with lower ids.")


@dataclass(frozen=True, slots=True)
class Withheld:
    """One of them; `publish_at` None: not until somebody says so."""

    killmail: models.Killmail
    publish_at: datetime | None


class Viewer(graphene.ObjectType):
    """You."""

    name = graphene.String(required=True, description="Of the character that has been yours the longest.")
    characters = graphene.List(graphene.NonNull(UserCharacter), required=True, description="All that have logged in.")
    publication = graphene.Field(Publication, required=True, description="What becomes of what they bring.")
    withheld_killmails = graphene.Field(
        WithheldKillmails,
        required=True,
        first=graphene.Argument(graphene.Int, default_value=25, description="How many, 1 to 100."),
        before=graphene.Argument(graphene.ID, description="Only those with a lower id than this."),
        description="Killmails that you brought and that are not published.",
    )
    killmails_to_fetch = graphene.Int(
        required=True, description="How many of your killmails ESI has not been asked for yet."
    )

    @staticmethod
    def resolve_name(user_id: int, info: graphene.ResolveInfo) -> str:
        characters = models.UserCharacter.objects.filter(user=user_id).order_by("added_at", "pk")
        first = characters.values_list("name", flat=True).first()
        return first or f"user {user_id}"

    @staticmethod
    def resolve_characters(user_id: int, info: graphene.ResolveInfo) -> list[models.UserCharacter]:
        characters = models.UserCharacter.objects.filter(user=user_id)
        return list(characters.exclude(state=models.UserCharacter.State.LEAVING).order_by("name"))

    @staticmethod
    def resolve_publication(user_id: int, info: graphene.ResolveInfo) -> models.Publication:
        return accounts.publication_of(user_id)

    @staticmethod
    def resolve_withheld_killmails(
        user_id: int, info: graphene.ResolveInfo, first: int | None, before: str | None = None
    ) -> WithheldKillmails:
        if first is None or not 1 <= first <= MAX_FIRST:
            raise bad_input(f"first: must be from 1 to {MAX_FIRST}.")
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 20):
            raise bad_input(f"before: {before[:40]!r} is not a killmail's id, a whole number.")
        nodes, more = withheld_page(user_id, info.context.fields, first, None if before is None else int(before))
        return WithheldKillmails(nodes=nodes, has_next_page=more)

    @staticmethod
    def resolve_killmails_to_fetch(user_id: int, info: graphene.ResolveInfo) -> int:
        to_fetch = models.PendingKillmail.State.TO_FETCH
        return models.PendingKillmail.objects.filter(state=to_fetch, owners__user=user_id).count()


def _withheld(user_id: int) -> QuerySet[models.PendingKillmail]:
    """Without those that came by the feed meanwhile, and so are no secret."""
    public = models.Killmail.objects.filter(pk=OuterRef("killmail_id"))
    return models.PendingKillmail.objects.withheld_of(user_id).exclude(Exists(public))


def withheld_page(
    user_id: int, fields: frozenset[str], first: int, before: int | None = None
) -> tuple[list[Withheld], bool]:
    """The first so many of the user's withheld killmails, highest id first, and whether there are more."""
    rows = _withheld(user_id)
    if before is not None:
        rows = rows.filter(killmail_id__lt=min(before, 2**63 - 1))
    found = list(rows.order_by("-killmail_id")[: first + 1])
    killmails = load_withheld(found[:first], fields)
    due_at = {row.killmail_id: row.due_at for row in found}
    page = [Withheld(killmail, due_at[killmail.pk]) for killmail in killmails]
    return page, len(found) > first


class Query(graphene.ObjectType):
    """Read who you are."""

    viewer = graphene.Field(Viewer, description="You; null for who brought no API token.")

    @staticmethod
    def resolve_viewer(root: None, info: graphene.ResolveInfo) -> int | None:
        return user_of(info)
