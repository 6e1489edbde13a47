"""GraphQL: how far the lists of a user's killmails are read."""

from collections.abc import Hashable, Iterable

import graphene
from django.db.models import Q

from killmails import models
from killmails.accounts import Viewer, living
from killmails.schema.callers import required_user, unauthenticated
from realtime.callers import Caller
from realtime.watch import Watch


class SyncKind(graphene.Enum):
    """Whose killmails a list holds."""

    CHARACTER = models.KillmailSync.Kind.CHARACTER.value
    CORPORATION = models.KillmailSync.Kind.CORPORATION.value

    @property
    def description(self) -> str | None:
        texts = {"character": "Its own losses and final blows.", "corporation": "Those of all its members."}
        return texts[self.value] if self else None


class SyncState(graphene.Enum):
    """How a list stands."""

    WAITING = "WAITING"
    UP_TO_DATE = "UP_TO_DATE"
    READING = "READING"
    RETRYING = "RETRYING"
    OFF = "OFF"

    @property
    def description(self) -> str | None:
        texts = {
            "WAITING": "It has not been read yet, or not since the last login.",
            "UP_TO_DATE": "The last run read all that was new.",
            "READING": "It is long, and ESI's limit allows twelve pages in a quarter of an hour.",
            "RETRYING": "The last run came to nothing, for the `reason`; the next one is under way.",
            "OFF": "It is not read until somebody logs in again, for the `reason`.",
        }
        return texts[self.value] if self else None


class SyncStatus(graphene.ObjectType):
    """The list of recent killmails of a character or a corporation."""

    kind = graphene.Field(SyncKind, required=True, description="A character's or a corporation's.")
    id = graphene.ID(required=True, source="eve_id", description="EVE's id of the character or the corporation.")
    name = graphene.String(description="Null until it is known.")
    state = graphene.Field(SyncState, required=True, description="How it stands.")
    reason = graphene.String(description="Why it is RETRYING, READING or OFF, in words.")
    last_run = graphene.DateTime(source="last_run_at", description="Null before the first.")
    last_success = graphene.DateTime(source="last_success_at", description="When it was last read to its end.")
    next_run = graphene.DateTime(source="due_at", description="Not before; null where it is OFF.")
    new_killmails = graphene.Int(
        required=True, description="That the last run found: not published, and not brought by you before."
    )

    @staticmethod
    def resolve_reason(sync: models.KillmailSync, info: graphene.ResolveInfo) -> str | None:
        return sync.reason or None


class Query(graphene.ObjectType):
    """Read how far the lists are read."""

    my_sync_status = graphene.List(
        graphene.NonNull(SyncStatus),
        required=True,
        description="The lists of your characters, and of the corporations that they may read. Needs an API token.",
    )

    @staticmethod
    def resolve_my_sync_status(root: None, info: graphene.ResolveInfo) -> list[models.KillmailSync]:
        return statuses(required_user(info))


class Subscription(graphene.ObjectType):
    """Be told how far the lists are read."""

    my_sync_status = graphene.List(
        graphene.NonNull(SyncStatus),
        required=True,
        description="The same as the query's: now, and whenever something in it changes.",
    )

    @staticmethod
    def subscribe_my_sync_status(root: None, caller: Caller) -> Watch:
        if caller.viewer is None:
            raise unauthenticated()
        return Watch(caller.viewer)

    @staticmethod
    def resolve_my_sync_status(root: None, info: graphene.ResolveInfo) -> list[models.KillmailSync]:
        return statuses(required_user(info))


def probe(viewers: Iterable[Viewer]) -> dict[Viewer, Hashable]:
    """What tells whether `statuses` have changed, for each whose token still holds. Three queries for any number."""
    alive = living(viewers)
    users = {viewer.user_id for viewer in alive}
    characters = list(
        models.UserCharacter.objects.filter(user__in=users).values_list("user_id", "pk", "director_of", "changed_at")
    )
    ids = {pk for _, pk, _, _ in characters} | {director_of for _, _, director_of, _ in characters}
    rows = models.KillmailSync.objects.filter(eve_id__in=ids).order_by("pk")
    by_id: dict[int, list[Hashable]] = {}
    for eve_id, *rest in rows.values_list("eve_id", "pk", "changed_at", "due_at"):
        by_id.setdefault(eve_id, []).append(tuple(rest))
    versions: dict[int, list[Hashable]] = {user_id: [] for user_id in users}
    for user_id, pk, director_of, changed_at in characters:
        its = (*by_id.get(pk, ()), *by_id.get(director_of, ()))
        versions[user_id].append((pk, director_of, changed_at, its))
    return {viewer: tuple(sorted(versions[viewer.user_id], key=repr)) for viewer in alive}


def statuses(user_id: int) -> list[models.KillmailSync]:
    """Of the user's characters, and of the corporations that they gave us the right to read. Three queries."""
    rows = list(models.KillmailSync.objects.filter(lists_of(user_id)).order_by("kind", "eve_id"))
    for kind, model in ((SyncKind.CHARACTER, models.Character), (SyncKind.CORPORATION, models.Corporation)):
        ids = [row.eve_id for row in rows if row.kind == kind.value]
        names = dict(model.objects.filter(pk__in=ids).values_list("pk", "name")) if ids else {}
        for row in rows:
            if row.kind == kind.value:
                row.name = names.get(row.eve_id)
    return rows


def lists_of(user_id: int) -> Q:
    """Which lists those are."""
    characters = models.UserCharacter.objects.filter(user=user_id).exclude(state=models.UserCharacter.State.LEAVING)
    rows = list(characters.values_list("pk", "director_of"))
    # Only to those to whom ESI has given it: how many killmails there are is not for every member.
    corporations = {director_of for _, director_of in rows if director_of}
    own = Q(kind=models.KillmailSync.Kind.CHARACTER, eve_id__in=[pk for pk, _ in rows])
    return own | Q(kind=models.KillmailSync.Kind.CORPORATION, eve_id__in=corporations)
