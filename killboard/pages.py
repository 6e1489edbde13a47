"""What a browser is given, each page under a content security policy of its own.

The first page and GraphiQL are the same for everyone: what they show comes through the public API, asked for by their
scripts. The pages about who is logged in have no scripts.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

# Everything comes from the board itself; nothing may be framed, posted or loaded from elsewhere.
FIRST_PAGE_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    # Turns innerHTML and its kin into an error: names of players are inserted as text or not at all.
    "require-trusted-types-for": "'script'",
}
# GraphiQL's editor writes style elements, and its style sheet carries fonts and small pictures as data.
GRAPHIQL_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


# Forms, and nothing that moves; where a form leads to is added.
ACCOUNT_POLICY = {
    "default-src": "'none'",
    "style-src": "'self'",
    "img-src": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


@require_safe
def first_page(request: HttpRequest) -> HttpResponse:
    """The last killmails, and new ones as they come. The page asks `/graphql` for both."""
    return _page(request, "killboard/first_page.html", FIRST_PAGE_POLICY, {"sso": bool(settings.EVE_CLIENT_ID)})


@require_safe
def graphiql(request: HttpRequest) -> HttpResponse:
    """GraphiQL for the address it is served at, which answers JSON to those who do not ask for HTML."""
    response = _page(request, "killboard/graphiql.html", GRAPHIQL_POLICY)
    patch_vary_headers(response, ["Accept"])
    return response


def account_page(
    request: HttpRequest, name: str, context: dict[str, Any], *, status: int = 200, forms_to: str = ""
) -> HttpResponse:
    """A page about the one who asks. `forms_to`: where its forms lead to, beside the board."""
    response = render(request, f"killboard/{name}.html", context, status=status)
    policy = {**ACCOUNT_POLICY, "form-action": f"'self' {forms_to}".strip()}
    response["Content-Security-Policy"] = "; ".join(" ".join(directive) for directive in policy.items())
    return response


def _page(
    request: HttpRequest, template: str, policy: dict[str, str], context: dict[str, Any] | None = None
) -> HttpResponse:
    response = render(request, template, context)
    directives = {**policy, "connect-src": _connect_sources(request)}
    response["Content-Security-Policy"] = "; ".join(" ".join(directive) for directive in directives.items())
    # After an update of the board a browser must not keep last week's page.
    response["Cache-Control"] = "no-cache"
    return response


def _connect_sources(request: HttpRequest) -> str:
    """The board itself, by HTTP and by websocket."""
    host = request.get_host()
    if host.startswith("["):
        return "'self'"  # a policy has no way to write an IPv6 address
    # Not every browser takes 'self' to mean the websocket of the same host, so it is named.
    return f"'self' ws://{host} wss://{host}"
