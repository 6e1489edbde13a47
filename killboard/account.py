"""The account page: characters, lists, what is published, and tokens for programs. Plain forms, no script."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from killboard.login import user_of
from killboard.pages import account_page
from killmails import accounts, models, queueing
from killmails.models.users import CORPORATION, DELAYS, OWN
from killmails.schema.sync import lists_of, statuses
from killmails.schema.viewer import withheld_page

WITHHELD = 25  # shown
FIELDS = frozenset({"solarSystem", "victim", "shipType", "character"})


@never_cache
@require_http_methods(["GET", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """GET shows it; POST does what one of its forms asks for."""
    user_id = user_of(request)
    if user_id is None:
        return HttpResponseRedirect("/auth/login")
    if request.method == "GET":
        return _show(request, user_id)
    do = ACTIONS.get(request.POST.get("action", ""))
    told = do(user_id, request.POST) if do else None
    # A token is shown in this answer, and never again.
    return _show(request, user_id, **told) if told else HttpResponseRedirect("/account")


def _show(request: HttpRequest, user_id: int, **told: Any) -> HttpResponse:
    characters = models.UserCharacter.objects.filter(user=user_id)
    withheld, more = withheld_page(user_id, FIELDS, WITHHELD)
    context = {
        "characters": [_character(row) for row in characters.exclude(state="LEAVING").order_by("name")],
        "lists": statuses(user_id),
        "publication": accounts.publication_of(user_id),
        "delays": DELAYS[1:],
        "tokens": models.ApiToken.objects.filter(user=user_id).order_by("created_at"),
        "withheld": withheld,
        "more_withheld": more,
        **told,
    }
    return account_page(request, "account", context)


def _character(row: models.UserCharacter) -> dict[str, Any]:
    return {"row": row, "own": OWN in row.scopes, "corporation": CORPORATION in row.scopes}


def _set_publication(user_id: int, values: Any) -> None:
    accounts.choose_publication(user_id, values.get("publication", ""))


def _new_token(user_id: int, values: Any) -> dict[str, Any]:
    name = accounts.token_name(values.get("name", ""))
    if models.ApiToken.objects.filter(user=user_id, name=name).exists():  # the page was loaded anew
        return {"name_taken": name}
    token = accounts.new_api_token(user_id, name)
    return {"token": token, "too_many": token is None, "most": accounts.MOST_TOKENS}


def _forget_token(user_id: int, values: Any) -> None:
    accounts.forget_api_token(user_id, values.get("token", ""))


def _sync(user_id: int, values: Any) -> None:
    queueing.queue_lists(lists_of(user_id), models.Priority.COMMAND)


def _remove(user_id: int, values: Any) -> None:
    character = values.get("character", "")
    if character.isascii() and character.isdigit() and len(character) < 19:
        accounts.remove_character(user_id, int(character))


ACTIONS: dict[str, Callable[[int, Any], dict[str, Any] | None]] = {
    "publication": _set_publication,
    "new_token": _new_token,
    "forget_token": _forget_token,
    "remove": _remove,
    "sync": _sync,
}
