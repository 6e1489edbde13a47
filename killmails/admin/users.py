"""Who logged in with EVE, and how far their lists are read. No token, and nothing of a withheld killmail."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import OuterRef, QuerySet, Subquery, TextField
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from killmails import accounts
from killmails.admin import columns
from killmails.admin.readonly import NumberSearch
from killmails.models import Corporation, KillmailSync, UserCharacter
from killmails.models.users import CORPORATION, OWN

admin.site.unregister(User)


@admin.register(User)
class BoardUserAdmin(UserAdmin):
    """A user goes with all that is theirs; what that is, and how much is withheld for them, is nobody's business.

    Whoever has the characters that EVE has still to be told of stays.
    """

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        kept = [f"{user}, until EVE has been told that its characters are gone" for user in objs if _is_kept(user)]
        return [str(user) for user in objs], {"users": len(objs)}, set(), kept

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        accounts.forget_user(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        for user in queryset:
            accounts.forget_user(user)


def _is_kept(user: User) -> bool:
    return user.username == accounts.LEAVING


SCOPES = {OWN: "own killmails", CORPORATION: "corporation killmails"}


@admin.register(UserCharacter)
class UserCharacterAdmin(NumberSearch):
    """Of a character: whose it is, what it lets us read, and why not where it does not."""

    list_display = ("id", "name", "user_id", "state", "reason", "reads", "corporation_id")
    list_display_links = ("id", "name")
    list_filter = (("state", admin.ChoicesFieldListFilter),)
    fields = (
        "id", "name", "user", "state", "reason", "reads", "corporation_id", "director_of", "not_director", "added",
        "changed",
    )  # fmt: skip
    readonly_fields = ("reads", "added", "changed")
    ordering = ("id",)
    number_columns = ("pk", "corporation_id")
    search_help_text = "The id of a character, or of a corporation"

    @admin.display(description="may be read")
    def reads(self, character: UserCharacter) -> str:
        return ", ".join(SCOPES[scope] for scope in SCOPES if scope in character.scopes) or columns.NOTHING

    @admin.display(description="added at")
    def added(self, character: UserCharacter) -> str:
        return columns.moment(character.added_at)

    @admin.display(description="changed at")
    def changed(self, character: UserCharacter) -> str:
        return columns.ago(character.changed_at)


@admin.register(KillmailSync)
class KillmailSyncAdmin(NumberSearch):
    """Of a list: how it stands, when it was read and when it is read next. How many killmails it brought is told to
    its owners alone: they may be withheld.
    """

    list_display = ("eve_id", "name", "kind", "state", "reason", "read", "due")
    list_display_links = ("eve_id", "name")
    list_filter = (("state", admin.ChoicesFieldListFilter), ("kind", admin.ChoicesFieldListFilter))
    fields = ("eve_id", "name", "kind", "state", "reason", "priority", "read", "run", "due", "tries")
    readonly_fields = ("name", "read", "run", "due")
    ordering = ("-id",)
    number_columns = ("eve_id",)
    search_help_text = "The id of a character or a corporation"

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """With the names, in the one query."""
        names: list[Any] = [
            Subquery(model.objects.filter(pk=OuterRef("eve_id")).values("name")[:1], output_field=TextField())
            for model in (UserCharacter, Corporation)
        ]
        return super().get_queryset(request).annotate(name=Coalesce(*names))

    @admin.display(description="name")
    def name(self, sync: Any) -> str:
        return sync.name or columns.NOTHING

    @admin.display(description="read at")
    def read(self, sync: KillmailSync) -> str:
        return columns.ago(sync.last_success_at)

    @admin.display(description="last try at")
    def run(self, sync: KillmailSync) -> str:
        return columns.ago(sync.last_run_at)

    @admin.display(description="next at")
    def due(self, sync: KillmailSync) -> str:
        return columns.ago(sync.due_at)
