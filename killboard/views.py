"""GraphQL over HTTP, by the GraphQL-over-HTTP specification: JSON in, JSON out, and GraphiQL for a browser.

Source: https://graphql.github.io/graphql-over-http/draft/
"""

import json
import time
from typing import Any

from django.conf import settings
from django.core.exceptions import TooManyFieldsSent
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.views.decorators.csrf import csrf_exempt
from graphql import OperationType

from killboard import pages
from killboard.addresses import address_of
from killboard.database import RETRY_AFTER, Unavailable
from killboard.engine import engine
from killboard.queries import caller_of, database_is_away, execute, prepare
from realtime.callers import NotAuthenticated
from realtime.limits import Rates
from realtime.operations import BadOperation, as_json

MAX_BODY = 64 * 1024  # bytes
WINDOW = 10  # seconds

rates = Rates(settings.MAX_QUERIES_PER_10_S, WINDOW)


class BadRequest(Exception):
    """A request that is none, with the status that says how."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# Cookies give no rights here, and form-encoded bodies are refused: there is nothing for a foreign page to forge.
@csrf_exempt
async def graphql(request: HttpRequest) -> HttpResponseBase:
    """Queries by GET or POST, mutations by POST, subscriptions by websocket only."""
    try:
        return await _answer(request)
    except BadOperation as error:
        return _json(400, json.dumps({"errors": error.errors}).encode())
    except BadRequest as error:
        return _error(error.status, "BAD_REQUEST", str(error))
    except NotAuthenticated as error:
        return _error(401, error.code, str(error))
    except Unavailable as error:
        return _error(503, "UNAVAILABLE", str(error))


async def _answer(request: HttpRequest) -> HttpResponseBase:
    if _asks_for_graphiql(request):
        return pages.graphiql(request)
    if not rates.allow(address_of(request), time.monotonic()):
        raise BadRequest(429, f"More than {settings.MAX_QUERIES_PER_10_S} requests in 10 s; try again later.")
    parameters = _parameters(request)
    caller = await caller_of(request.headers.get("Authorization"), address_of(request))
    operation = await prepare(engine, *parameters, caller)
    if operation.kind is OperationType.SUBSCRIPTION:
        raise BadRequest(400, "Subscriptions need a websocket to this address, with graphql-transport-ws.")
    if operation.kind is OperationType.MUTATION and request.method != "POST":
        raise BadRequest(405, "Mutations need POST.")
    result = await execute(engine, operation)
    response = _json(503 if database_is_away(result) else 200, as_json(result))
    if caller.viewer is not None:
        response["Cache-Control"] = "no-store"  # it is about them, and for nobody else
    return response


def _asks_for_graphiql(request: HttpRequest) -> bool:
    """Browsers prefer HTML; a client that takes anything (curl's */*) gets JSON."""
    if request.method not in ("GET", "HEAD") or "query" in _address_values(request):
        return False
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"


def _address_values(request: HttpRequest) -> dict[str, Any]:
    try:
        return request.GET.dict()
    except TooManyFieldsSent as error:
        raise BadRequest(400, "The address has too many parameters.") from error


def _error(status: int, code: str, message: str) -> HttpResponse:
    return _json(status, json.dumps({"errors": [{"message": message, "extensions": {"code": code}}]}).encode())


def _json(status: int, body: bytes) -> HttpResponse:
    response = HttpResponse(body, status=status, content_type="application/json; charset=utf-8")
    if status == 405:
        response["Allow"] = "GET, POST"
    if status == 401:
        response["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        response["Retry-After"] = WINDOW if status == 429 else RETRY_AFTER
    patch_vary_headers(response, ["Accept", "Authorization"])
    return response


def _parameters(request: HttpRequest) -> tuple[str, dict[str, Any] | None, str | None]:
    match request.method:
        case "GET" | "HEAD":
            values = _address_values(request)
            if "variables" in values:
                values["variables"] = _read_json(values["variables"], "variables")
        case "POST":
            values = _body(request)
        case _:
            raise BadRequest(405, "Use POST, or GET for queries.")
    query, variables, name = (values.get(key) for key in ("query", "variables", "operationName"))
    if not isinstance(query, str):
        raise BadRequest(400, "query must be a string.")
    if not isinstance(variables, dict | None):
        raise BadRequest(400, "variables must be an object.")
    if not isinstance(name, str | None):
        raise BadRequest(400, "operationName must be a string.")
    return query, variables, name


def _body(request: HttpRequest) -> dict[str, Any]:
    if request.content_type not in ("application/json", "application/graphql-response+json"):
        raise BadRequest(415, "Content-Type must be application/json.")
    if (request.content_params or {}).get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise BadRequest(415, "The charset must be utf-8.")
    body = request.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise BadRequest(413, f"The body must not exceed {MAX_BODY} bytes.")
    try:
        values = _read_json(body.decode("utf-8-sig"), "The body")
    except UnicodeDecodeError as error:
        raise BadRequest(400, "The body is not UTF-8.") from error
    if not isinstance(values, dict):
        raise BadRequest(400, "The body must be an object with query, variables and operationName.")
    return values


def _read_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, f"{what} is not JSON.") from error
