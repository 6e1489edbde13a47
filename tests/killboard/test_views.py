"""GraphQL over HTTP: what is accepted, and what each wrong request gets."""

import http.client
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.db import InterfaceError, OperationalError
from django.db.models.functions import Now
from django.test import Client, RequestFactory
from graphql import build_schema

from killboard import addresses, queries, views
from killmails import accounts, models
from realtime.limits import Rates
from realtime.operations import Engine
from tests.realtime.memory_log import SECRET
from tests.realtime.running_server import running_server

QUERY = "{ feed { mode } }"
JSON = "application/json"
ANSWER = "application/json; charset=utf-8"


@pytest.fixture(autouse=True)
def feed_off(settings):
    settings.FEED = "off"
    settings.ALLOWED_HOSTS = ["testserver", "127.0.0.1"]


@pytest.fixture
def post(client):
    """Posts a body: bytes and texts as they are, all else as JSON."""

    def post(body, content_type=JSON, **headers):
        raw = body if isinstance(body, bytes | str) else json.dumps(body)
        # Not client.post: it would write the body anew in the charset that is named.
        return client.generic("POST", "/graphql", raw, content_type, headers=headers, CONTENT_TYPE=content_type)

    return post


@pytest.fixture
def mutable(monkeypatch):
    """The view with a schema that has a mutation, which counts."""
    schema = build_schema("type Query { ok: Boolean secret: String } type Mutation { shoot: Int }")
    shots = []
    schema.mutation_type.fields["shoot"].resolve = lambda root, info: shots.append(1) or len(shots)
    schema.query_type.fields["secret"].resolve = _fail
    monkeypatch.setattr(views, "engine", Engine(schema))
    return shots


def _fail(root, info):
    raise RuntimeError(f"password {SECRET}")


def _refused(response, status, code="BAD_REQUEST"):
    """The message of a refusal, which is always JSON."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == ANSWER
    body = response.json()
    assert "data" not in body
    if code is not None:
        assert body["errors"][0]["extensions"]["code"] == code
    return body["errors"][0]["message"]


# How often


@pytest.fixture
def thrice(monkeypatch, settings):
    settings.TRUSTED_PROXIES = 1
    monkeypatch.setattr(views, "rates", Rates(3, 10.0))


def test_address_that_asks_too_often_is_429_whatever_it_writes_before_what_our_proxy_saw(post, thrice):
    invented = [f"10.9.8.{number}, 192.0.2.1" for number in range(20)]
    statuses = [post({"query": QUERY}, x_forwarded_for=addresses).status_code for addresses in invented]
    assert statuses == [200] * 3 + [429] * 17
    response = post({"query": QUERY}, x_forwarded_for="192.0.2.1")
    assert "in 10 s; try again later" in _refused(response, 429)
    assert response["Retry-After"] == "10"
    assert post({"query": QUERY}, x_forwarded_for="192.0.2.2").status_code == 200


def test_t9_a_thousand_tokens_and_addresses_that_one_client_invents_are_one_client(post, monkeypatch, settings):
    """Where the count is kept is this process itself: no Redis can be away."""
    settings.TRUSTED_PROXIES = 1
    monkeypatch.setattr(views, "rates", Rates(200, 3600.0))
    statuses = Counter(
        post(
            {"query": QUERY},
            x_forwarded_for=f"10.9.{number // 250}.{number % 250}, 192.0.2.1",
            authorization=f"Bearer {number}",
        ).status_code
        for number in range(1000)
    )
    assert statuses == {401: 200, 429: 800}  # none of the tokens is one


def test_who_believes_the_first_address_limits_nobody(post, thrice, monkeypatch):
    """Known to be wrong."""
    monkeypatch.setattr(addresses, "client_address", lambda peer, forwarded, _: forwarded[0].split(",")[0])
    for number in range(20):
        assert post({"query": QUERY}, x_forwarded_for=f"10.9.8.{number}, 192.0.2.1").status_code == 200


# What is accepted


def test_query_by_post_is_answered_in_json(post):
    response = post({"query": QUERY})
    assert (response.status_code, response["Content-Type"]) == (200, ANSWER)
    assert response.json() == {"data": {"feed": {"mode": "OFF"}}}


@pytest.mark.parametrize("address", ["/graphql", "/graphql/"])
def test_address_may_end_in_a_slash(client, address):
    assert client.post(address, {"query": QUERY}, content_type=JSON).status_code == 200


def test_query_by_get_is_answered_in_json(client):
    response = client.get("/graphql", {"query": QUERY})
    assert response.json() == {"data": {"feed": {"mode": "OFF"}}}


def test_get_takes_variables_and_operation_name(client):
    document = "query A($s: Boolean!) { feed { mode @skip(if: $s) __typename } } query B { __typename }"
    asked = {"query": document, "variables": '{"s": true}', "operationName": "A"}
    assert client.get("/graphql", asked).json() == {"data": {"feed": {"__typename": "Feed"}}}


def test_post_takes_variables_and_operation_name_and_ignores_extensions(post):
    document = "query A($s: Boolean!) { feed { mode @skip(if: $s) __typename } } query B { __typename }"
    body = {"query": document, "variables": {"s": True}, "operationName": "A", "extensions": {"x": 1}}
    assert post(body).json() == {"data": {"feed": {"__typename": "Feed"}}}


@pytest.mark.parametrize("nothing", [{"variables": None}, {"operationName": None}, {"variables": {}}])
def test_null_stands_for_left_out(post, nothing):
    assert post({"query": QUERY} | nothing).status_code == 200


def test_head_of_a_query_has_the_headers_and_no_body(client):
    response = client.head("/graphql", {"query": QUERY})
    assert (response.status_code, response["Content-Type"], response.content) == (200, ANSWER, b"")


def test_answer_depends_on_accept_for_caches(post, client):
    assert post({"query": QUERY})["Vary"] == "Accept, Authorization"
    assert client.get("/graphql", headers={"accept": "text/html"})["Vary"] == "Accept"


def test_no_cookie_is_set_and_none_is_needed(client, post):
    response = post({"query": QUERY})
    assert response.cookies == {}


def test_no_csrf_token_is_asked_for():
    strict = Client(enforce_csrf_checks=True)
    assert strict.post("/graphql", {"query": QUERY}, content_type=JSON).status_code == 200


# Bodies that are none


@pytest.mark.parametrize("body", [[], "x", 5, None, True, [{"query": QUERY}]], ids=repr)
def test_body_that_is_no_object_is_400(post, body):
    message = "The body must be an object with query, variables and operationName."
    assert _refused(post(json.dumps(body)), 400) == message


@pytest.mark.parametrize("query", [5, ["{ feed { mode } }"], None, {}, True], ids=repr)
def test_query_that_is_no_text_is_400(post, query):
    assert _refused(post({"query": query}), 400) == "query must be a string."


def test_missing_query_is_400(post):
    assert _refused(post({}), 400) == "query must be a string."


@pytest.mark.parametrize("variables", ["abc", [1], 5, True], ids=repr)
def test_variables_that_are_no_object_are_400(post, variables):
    assert _refused(post({"query": QUERY, "variables": variables}), 400) == "variables must be an object."


@pytest.mark.parametrize("name", [5, ["A"], {}], ids=repr)
def test_operation_name_that_is_no_text_is_400(post, name):
    assert _refused(post({"query": QUERY, "operationName": name}), 400) == "operationName must be a string."


@pytest.mark.parametrize(
    "body",
    ["[" * 60_000, '{"query":' * 7_000, "{", "", "hello", '{"query": "{ feed }"} x', "1" * 5000, "\x00"],
    ids=lambda body: body[:12] or "empty",
)
def test_body_that_is_not_json_is_400(post, body):
    assert _refused(post(body), 400) == "The body is not JSON."


def test_body_of_100_000_brackets_is_refused_before_it_is_read(post):
    assert "65536 bytes" in _refused(post("[" * 100_000), 413)


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_variables_of_any_depth_are_answered_or_400(post, depth):
    body = '{"query": "%s", "variables": {"a": %s}}' % (QUERY, "[" * depth + "]" * depth)  # noqa: UP031
    assert post(body).status_code in (200, 400)


def test_body_of_64_kib_is_accepted_and_a_byte_more_is_413(post):
    body = json.dumps({"query": QUERY})
    assert post(body.ljust(64 * 1024)).status_code == 200
    assert _refused(post(body.ljust(64 * 1024 + 1)), 413) == "The body must not exceed 65536 bytes."


def test_body_of_65_kib_is_413_also_in_chunks():
    with running_server(get_asgi_application()) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for size, status in [(0, 200), (65 * 1024, 413)]:
            chunks = iter([json.dumps({"query": QUERY}).encode()] + [b" " * 1024] * (size // 1024))
            headers = {"Content-Type": JSON, "Transfer-Encoding": "chunked"}
            connection.request("POST", "/graphql", body=chunks, headers=headers, encode_chunked=True)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert (answer.status, answer.headers["Content-Type"]) == (status, ANSWER)
        assert body["errors"][0]["message"] == "The body must not exceed 65536 bytes."
        connection.close()


# Content types


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/graphql",
        "",
        "x",
    ],
)
def test_body_of_another_type_is_415(post, content_type):
    body = f"query={QUERY}" if "form" in content_type else json.dumps({"query": QUERY})
    assert _refused(post(body, content_type), 415) == "Content-Type must be application/json."


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON", f"{JSON}; charset=utf-8", f'{JSON}; charset="UTF8"']
)
def test_json_is_accepted_however_it_is_written(post, content_type):
    assert post({"query": QUERY}, content_type).status_code == 200


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "utf-7", "nonsense"])
def test_body_of_another_charset_is_415(post, charset):
    body = json.dumps({"query": QUERY}).encode("utf-16")
    assert _refused(post(body, f"{JSON}; charset={charset}"), 415) == "The charset must be utf-8."


def test_byte_order_mark_is_accepted(post):
    assert post(b"\xef\xbb\xbf" + json.dumps({"query": QUERY}).encode()).status_code == 200


@pytest.mark.parametrize("body", [b"\xff\xfe{\x00}\x00", b'{"query": "\xc3\x28"}', b'{"query": "\xed\xa0\x80"}'])
def test_body_that_is_not_utf8_is_400(post, body):
    assert _refused(post(body), 400) == "The body is not UTF-8."


# Methods


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_method_is_405_and_the_allowed_are_named(client, method):
    response = client.generic(method, "/graphql", json.dumps({"query": QUERY}), content_type=JSON)
    assert response.headers["Allow"] == "GET, POST"
    assert _refused(response, 405) == "Use POST, or GET for queries."


def test_mutation_by_post_runs(mutable, post):
    assert post({"query": "mutation { shoot }"}).json() == {"data": {"shoot": 1}}


@pytest.mark.parametrize("method", ["get", "head"])
def test_mutation_by_get_is_405_and_does_not_run(mutable, client, method):
    response = getattr(client, method)("/graphql", {"query": "mutation { shoot }"})
    assert (response.status_code, response["Allow"]) == (405, "GET, POST")
    assert mutable == []


def test_mutation_by_get_does_not_run_beside_a_query(mutable, client):
    document = "query A { ok } mutation B { shoot }"
    assert client.get("/graphql", {"query": document, "operationName": "B"}).status_code == 405
    assert client.get("/graphql", {"query": document, "operationName": "A"}).status_code == 200
    assert mutable == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", "query=mutation+%7B+shoot+%7D"),
        (
            "multipart/form-data; boundary=x",
            '--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nmutation{shoot}\r\n--x--',
        ),
        ("text/plain", '{"query": "mutation { shoot }"}'),
    ],
)
def test_mutation_as_a_form_is_415_and_does_not_run(mutable, post, content_type, body):
    _refused(post(body, content_type), 415)
    assert mutable == []


def test_post_does_not_read_the_query_from_the_address(client):
    response = client.post("/graphql?query=%7Bfeed%7Bmode%7D%7D", "{}", content_type=JSON)
    assert _refused(response, 400) == "query must be a string."


@pytest.mark.parametrize("method", ["get", "post"])
def test_subscription_over_http_is_refused_and_says_where_they_are(client, post, method):
    document = "subscription { newKillmail { id } }"
    response = client.get("/graphql", {"query": document}) if method == "get" else post({"query": document})
    message = "Subscriptions need a websocket to this address, with graphql-transport-ws."
    assert _refused(response, 400) == message


# Who asks

VIEWER = "{ viewer { name publication { publish delayHours } } }"
PUBLISH = "mutation { setPublicationDelay(hours: 24) { publish delayHours } }"
WRONG_TOKENS = {
    "other scheme": "Basic a29s",
    "no scheme": "kb_abc",
    "no token": "Bearer",
    "empty": "",
    "not ours": "Bearer eyJhbGciOiJIUzI1NiJ9",
    "long": f"Bearer kb_{'a' * 500}",
    "huge": f"Bearer kb_{'a' * 60_000}",
    "not ASCII": "Bearer kb_é",
}


@pytest.fixture
def tokens(transactional_db):
    """By the names of the two users whose they are; threads see them as well."""
    users = [get_user_model().objects.create(username=name) for name in ("anna", "berta")]
    models.UserCharacter.objects.bulk_create(
        models.UserCharacter(pk=user.pk, user=user, name=user.username) for user in users
    )
    return {user.username: accounts.new_api_token(user.pk, "bot") for user in users}


def _bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_token_says_who_asks_and_only_what_is_about_them_is_not_to_be_stored(post, client, tokens):
    answers = {name: post({"query": VIEWER}, **_bearer(token)) for name, token in tokens.items()}
    assert {name: answer.json() for name, answer in answers.items()} == {
        name: {"data": {"viewer": {"name": name, "publication": {"publish": False, "delayHours": 0}}}}
        for name in tokens
    }
    by_get = client.get("/graphql", {"query": VIEWER}, headers=_bearer(tokens["anna"]))
    assert by_get.json() == answers["anna"].json()
    for answer in (*answers.values(), by_get):
        assert (answer["Cache-Control"], answer["Vary"]) == ("no-store", "Accept, Authorization")
    nobody = post({"query": VIEWER})
    assert nobody.json() == {"data": {"viewer": None}}
    assert ("Cache-Control" in nobody, nobody["Vary"]) == (False, "Accept, Authorization")


@pytest.mark.parametrize("header", WRONG_TOKENS.values(), ids=WRONG_TOKENS.keys())
def test_what_is_no_token_is_401_and_nothing_runs(mutable, post, client, header):
    for response in (
        post({"query": "mutation { shoot }"}, authorization=header),
        client.get("/graphql", {"query": "{ ok }"}, headers={"authorization": header}),
    ):
        assert _refused(response, 401, "UNAUTHENTICATED").startswith("The token is not valid")
        assert (response["WWW-Authenticate"], response["Vary"]) == ("Bearer", "Accept, Authorization")
    assert mutable == []


def test_token_that_holds_no_more_is_401_and_nothing_runs(mutable, post, tokens):
    def asked(token):
        response = post({"query": "mutation { shoot }"}, **_bearer(token))
        return response.status_code, len(mutable)

    anna, berta = tokens.values()
    assert (asked(anna), asked(berta)) == ((200, 1), (200, 2))
    assert asked(f"{anna}, Bearer {anna}") == (401, 2)
    models.ApiToken.objects.filter(user__username="anna").update(expires_at=Now() - timedelta(seconds=1))
    get_user_model().objects.filter(username="berta").update(is_active=False)
    assert [asked(token) for token in (anna, berta, f"kb_{'a' * 43}")] == [(401, 2)] * 3


def test_mutation_by_post_is_the_users_own_and_by_get_it_is_none(post, client, tokens):
    by_get = client.get("/graphql", {"query": PUBLISH}, headers=_bearer(tokens["anna"]))
    assert (by_get.status_code, models.Publication.objects.count()) == (405, 0)
    answer = post({"query": PUBLISH}, **_bearer(tokens["anna"]))
    assert answer.json() == {"data": {"setPublicationDelay": {"publish": True, "delayHours": 24}}}
    assert list(models.Publication.objects.values_list("user__username", "delay_hours")) == [("anna", 24)]


def test_browsers_login_gives_no_rights_here(client, post, tokens):
    client.force_login(get_user_model().objects.get(username="anna"))
    assert "sessionid" in client.cookies
    assert post({"query": VIEWER}).json() == {"data": {"viewer": None}}
    refused = post({"query": PUBLISH})
    assert refused.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert models.Publication.objects.count() == 0
    other = post({"query": VIEWER}, **_bearer(tokens["berta"]))
    assert other.json()["data"]["viewer"]["name"] == "berta"


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_token_while_the_database_is_away_is_503_and_nothing_runs(mutable, post, monkeypatch, error):
    def fail(token):
        raise error("connection refused")

    monkeypatch.setattr(queries, "authenticate", fail)
    response = post({"query": "mutation { shoot }"}, **_bearer("kb_abc"))
    assert "does not answer" in _refused(response, 503, "UNAVAILABLE")
    assert (response["Retry-After"], mutable) == ("5", [])


# T10


def _mixed(tokens, count):
    """Who asked and whom they were told that they are: requests of two users and of nobody, eight at a time."""
    bearers = {None: {}, **{name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}}
    body = json.dumps({"query": VIEWER})

    def ask(names):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for name in names:
            connection.request("POST", "/graphql", body, {"Content-Type": JSON, **bearers[name]})
            viewer = json.loads(connection.getresponse().read())["data"]["viewer"]
            yield name, viewer and viewer["name"]
        connection.close()

    askers = [random.Random(seed).choices(list(bearers), k=count // 8) for seed in range(8)]
    with running_server(get_asgi_application()) as port, ThreadPoolExecutor(8) as threads:
        return [pair for pairs in threads.map(lambda names: list(ask(names)), askers) for pair in pairs]


def test_two_hundred_mixed_requests_are_each_answered_to_who_asked(tokens):
    told = _mixed(tokens, 200)
    assert (len(told), {asked for asked, _ in told}) == (200, {None, "anna", "berta"})
    assert [pair for pair in told if pair[0] != pair[1]] == []


def test_who_keeps_answers_without_who_asked_tells_others(tokens, monkeypatch):
    """Known to be wrong."""
    kept = {}

    async def execute(engine, operation):
        if operation.selection not in kept:
            kept[operation.selection] = await queries.execute(engine, operation)
        return kept[operation.selection]

    monkeypatch.setattr(views, "execute", execute)
    assert [pair for pair in _mixed(tokens, 40) if pair[0] != pair[1]] != []


# Queries in the address


@pytest.mark.parametrize("variables", ["abc", "{", "", "[" * 5000])
def test_variables_in_the_address_that_are_not_json_are_400(client, variables):
    assert _refused(client.get("/graphql", {"query": QUERY, "variables": variables}), 400) == "variables is not JSON."


@pytest.mark.parametrize("variables", ["[]", "5", '"a"'])
def test_variables_in_the_address_that_are_no_object_are_400(client, variables):
    assert (
        _refused(client.get("/graphql", {"query": QUERY, "variables": variables}), 400)
        == "variables must be an object."
    )


def test_address_with_thousands_of_parameters_is_400_in_json(client):
    response = client.get("/graphql?" + "&".join(f"a{n}=1" for n in range(2000)))
    assert _refused(response, 400) == "The address has too many parameters."


def test_get_without_a_query_is_400_for_those_who_want_json(client):
    for accept in (JSON, "*/*", "application/graphql-response+json, application/json"):
        assert _refused(client.get("/graphql", headers={"accept": accept}), 400) == "query must be a string."


@pytest.mark.parametrize(
    "accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/*"]
)
def test_get_without_a_query_is_graphiql_for_a_browser(client, accept):
    response = client.get("/graphql", headers={"accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize(
    "accept", [JSON, "*/*", "text/html", "application/graphql-response+json", "image/png", "x", ""]
)
def test_query_is_answered_in_json_whatever_is_accepted(client, post, accept):
    for response in (
        post({"query": QUERY}, accept=accept),
        client.get("/graphql", {"query": QUERY}, headers={"accept": accept}),
    ):
        assert (response.status_code, response["Content-Type"]) == (200, ANSWER)


@pytest.mark.parametrize("accept", ["text/html", "*/*", JSON])
def test_error_is_never_an_html_page(post, accept):
    _refused(post("{", accept=accept), 400)
    _refused(post({"query": "{ nothing }"}, accept=accept), 400, code=None)
    _refused(post({"query": QUERY}, "text/html", accept=accept), 415)


# Documents


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{ nothing }", "Cannot query field 'nothing' on type 'Query'."),
        ("{ feed { mode }", "Syntax Error: Expected Name, found <EOF>."),
        ("", "Syntax Error: Unexpected <EOF>."),
        ("{ ...A } fragment A on Query { ...A }", "Cannot spread fragment 'A' within itself."),
        ("{ ...Nowhere }", "Unknown fragment 'Nowhere'."),
        (
            "{ killmails(first: 2147483648) { nodes { id } } }",
            "Int cannot represent non 32-bit signed integer value: 2147483648",
        ),
        (
            "{ killmails(page: 1) { nodes { id } } }",
            "Unknown argument 'page' on field 'Query.killmails'.",
        ),
    ],
)
def test_invalid_document_is_400_with_the_reason(post, document, message):
    assert _refused(post({"query": document}), 400, code=None) == message


def test_two_operations_without_a_name_are_400(post):
    document = "query A { __typename } query B { __typename }"
    assert _refused(post({"query": document}), 400) == "Name one operation: operationName."


def test_unknown_operation_name_is_400(post):
    body = {"query": "query A { __typename }", "operationName": "B"}
    assert _refused(post(body), 400) == "There is no operation named 'B'."


def test_missing_variable_is_400(post):
    body = {"query": "query($id: ID!) { killmail(id: $id) { id } }"}
    assert _refused(post(body), 400, code=None) == "Variable '$id' of required type 'ID!' was not provided."


HOSTILE = {
    "aliases": "{" + " ".join(f"a{n}:__typename" for n in range(3_000)) + "}",
    "fragment cycle": "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    "fragment paths": "{...F0}"
    + "".join(f"fragment F{n} on Query{{...F{n + 1} ...F{n + 1}}}" for n in range(22))
    + "fragment F22 on Query{nothing}",
    "depth": "{a" * 400 + "}" * 400,
    "list depth": "{ killmails(first: " + "[" * 400 + "]" * 400 + ") { nodes { id } } }",
}


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_document_is_400_in_an_instant(post, document):
    post({"query": QUERY})
    started = time.process_time()
    _refused(post({"query": document}), 400, code=None)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("id_", ["1\x00", "\ud800", "\x00", "' OR 1=1 --"])
def test_text_that_no_database_takes_is_bad_input(post, id_):
    body = {"query": "query($id: ID!) { killmail(id: $id) { id } }", "variables": {"id": id_}}
    response = post(body)
    assert response.status_code == 200
    assert response.json()["data"] == {"killmail": None}
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"


def test_lone_surrogate_in_the_document_is_400(post):
    _refused(post(json.dumps({"query": '{ killmail(id: "\ud800") { id } }'})), 400, code=None)


def test_internal_error_shows_nothing_of_its_cause(mutable, post, caplog):
    response = post({"query": "{ ok secret }"})
    assert response.status_code == 200
    assert SECRET not in response.content.decode()
    assert response.json()["errors"][0]["extensions"] == {"code": "INTERNAL_ERROR"}
    assert caplog.text.count(f"RuntimeError: password {SECRET}") == 1


def test_view_needs_no_middleware():
    request = RequestFactory().post("/graphql", {"query": QUERY}, content_type=JSON)
    assert async_to_sync(views.graphql)(request).status_code == 200
