"""Operations: what is prepared once, what is equal, and what a client is told when it fails."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from django.db import OperationalError
from graphql import OperationType, build_schema

from realtime import operations
from realtime.operations import BadOperation, Engine
from tests.realtime.memory_log import SECRET, Number, build_numbers_schema
from tests.realtime.staging import calls_of


@pytest.fixture
def engine():
    return Engine(build_numbers_schema())


def _answer(engine, query):
    """The result, or the errors."""
    try:
        return engine.execute(engine.prepare(query, None, None))
    except BadOperation as error:
        return error.errors


def _refused(engine, query, variables=None, name=None):
    with pytest.raises(BadOperation) as caught:
        engine.prepare(query, variables, name)
    assert caught.value.errors
    return caught.value.errors


# What is prepared


def test_query_is_executed(engine):
    assert engine.execute(engine.prepare("{ hello }", None, None)) == b'{"data":{"hello":"hello you"}}'


def test_variables_reach_the_resolver(engine):
    operation = engine.prepare("query($n: String) { hello(name: $n) }", {"n": "Zoë"}, None)
    assert json.loads(engine.execute(operation)) == {"data": {"hello": "hello Zoë"}}


def test_operation_is_chosen_by_its_name(engine):
    document = "query A { hello } query B { bye }"
    results = {name: engine.execute(engine.prepare(document, None, name)) for name in ("A", "B")}
    assert results == {"A": b'{"data":{"hello":"hello you"}}', "B": b'{"data":{"bye":"bye"}}'}


def test_kind_is_that_of_the_chosen_operation(engine):
    document = "query A { bye } subscription B { number { text } }"
    assert engine.prepare(document, None, "A").kind is OperationType.QUERY
    assert engine.prepare(document, None, "B").kind is OperationType.SUBSCRIPTION


def test_fields_are_all_names_that_the_operation_selects_anywhere(engine):
    document = """
        subscription A { other: number { ...F ... on Number { position } } }
        fragment F on Number { words: text }
        query B { bye }
    """
    assert engine.prepare(document, None, "A").fields == {"number", "text", "position"}
    assert engine.prepare(document, None, "B").fields >= {"bye"}


def test_mutation_is_executed(engine):
    operation = engine.prepare("mutation($n: String!) { greet(name: $n) }", {"n": "Zoë"}, None)
    assert (operation.kind, json.loads(engine.execute(operation))) == (
        OperationType.MUTATION,
        {"data": {"greet": "greeted Zoë"}},
    )


def test_mutation_of_a_schema_without_mutations_fails_when_it_is_executed():
    engine = Engine(build_schema("type Query { bye: String }"))
    body = json.loads(engine.execute(engine.prepare("mutation { bye }", None, None)))
    assert body["data"] is None
    assert [error["message"] for error in body["errors"]] == ["Schema is not configured to execute mutation operation."]


# Prepared once


def test_document_is_parsed_and_validated_once(engine, monkeypatch):
    parsed = []
    parse = operations.parse
    monkeypatch.setattr(operations, "parse", lambda text, **options: parsed.append(text) or parse(text, **options))
    first, second = (engine.prepare("{ hello }", None, None) for _ in range(2))
    assert parsed == ["{ hello }"]
    assert first.document is second.document


@pytest.mark.parametrize("query", ["{ nothing }", "{", "{ bye }" * 2, "{ " + "bye " * 101 + "}"])
def test_document_that_was_refused_is_refused_again_without_being_read_again(engine, monkeypatch, query):
    first = _refused(engine, query)
    monkeypatch.setattr(operations, "parse", None)
    assert _refused(engine, query) == first
    assert engine.knows(query)


def test_cache_keeps_the_documents_used_last(engine, monkeypatch):
    texts = [f"{{ a{number}: hello }}" for number in range(4)]
    monkeypatch.setattr(operations, "CACHED_SIZE", 3 * len(texts[0]))
    for text in [*texts[:3], texts[0], texts[3]]:
        engine.prepare(text, None, None)
    assert list(engine._documents) == [texts[2], texts[0], texts[3]]


def test_documents_may_be_prepared_by_many_threads_at_once(engine, monkeypatch):
    monkeypatch.setattr(operations, "CACHED_SIZE", 5 * len("{ a1: bye }") + 2)
    start = threading.Barrier(8)

    def prepare(thread):
        start.wait()
        for number in range(60):
            text = f"{{ a{(number * 7 + thread) % 11}: bye }}"
            expected = f'{{"data":{{"a{(number * 7 + thread) % 11}":"bye"}}}}'.encode()
            assert engine.execute(engine.prepare(text, None, None)) == expected
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(prepare, range(8))) == [True] * 8
    assert 4 <= len(engine._documents) <= 5
    assert engine._cached == sum(map(len, engine._documents))


# What is equal


def _key(engine, query, variables=None, name=None):
    return engine.prepare(query, variables, name).selection


def test_spacing_commas_and_comments_make_no_difference(engine):
    plain = _key(engine, "subscription { number(over: 1) { position text } }")
    odd = _key(engine, "# mine\nsubscription{number(over:1){position,text}}  # end")
    assert plain == odd
    assert hash(plain) == hash(odd)


def test_name_that_is_given_or_left_out_makes_no_difference(engine):
    document = "subscription A { number { text } }"
    assert _key(engine, document) == _key(engine, document, None, "A")


def test_order_of_operations_never_confuses_one_with_the_other(engine):
    a, b = "subscription A { number { text } }", "subscription B { evens { text } }"
    assert _key(engine, a + b, None, "A") != _key(engine, a + b, None, "B")
    assert _key(engine, b + a, None, "A") != _key(engine, b + a, None, "B")
    assert _key(engine, a + b, None, "A") != _key(engine, b + a, None, "B")


def test_order_of_variables_makes_no_difference(engine):
    document = "query($a: String, $b: String) { x: hello(name: $a) y: hello(name: $b) }"
    assert _key(engine, document, {"a": "1", "b": "2"}) == _key(engine, document, {"b": "2", "a": "1"})


@pytest.mark.parametrize(
    ("one", "other"),
    [({"n": "1"}, {"n": "2"}), ({"n": "1"}, {}), ({"n": None}, {}), ({"n": ""}, {"n": None})],
)
def test_other_variables_make_another_key(engine, one, other):
    document = "query($n: String) { hello(name: $n) }"
    assert _key(engine, document, one) != _key(engine, document, other)


def test_variables_that_the_operation_does_not_declare_make_no_difference(engine):
    document = "subscription { number { text } }"
    plain = _key(engine, document)
    for junk in ({"x": 1}, {"x": 10**30}, {"x": "\ud800"}, {"x": float("nan")}, {"x": [[[]]]}):
        assert _key(engine, document, junk) == plain


@pytest.mark.parametrize("value", ["\ud800", "\x00", "x" * 60_000])
def test_key_holds_any_text(engine, value):
    document = "query($n: String) { hello(name: $n) }"
    assert _key(engine, document, {"n": value}) == _key(engine, document, {"n": value})


# Streams


@pytest.mark.parametrize(
    "document",
    [
        "subscription { number(over: 3) { text } }",
        "subscription { other: number(over: 3) { text } }",
        "subscription { ...F } fragment F on Subscription { number(over: 3) { text } }",
        "subscription { ... on Subscription { ...F } } fragment F on Subscription { number(over: 3) { text } }",
        "subscription { both @skip(if: true) { text } number(over: 3) { text } }",
        "subscription($o: Int = 3) { number(over: $o) { text } }",
    ],
)
def test_stream_is_that_of_the_root_field_wherever_it_stands(engine, document):
    stream = engine.stream(engine.prepare(document, None, None))
    assert (stream.over, stream.checkpoints) == (3, False)


def test_subscription_that_skips_its_only_field_is_refused(engine):
    operation = engine.prepare("subscription { both @skip(if: true) { text } }", None, None)
    with pytest.raises(BadOperation, match="The subscription skips its only field"):
        engine.stream(operation)


@pytest.mark.parametrize(
    "document",
    [
        "subscription { __typename }",
        "subscription { both { text } evens { text } }",
        "subscription { a: both { text } b: both { text } }",
        "subscription($s: Boolean!) { both @skip(if: $s) { text } }",
    ],
)
def test_subscription_without_exactly_one_field_is_refused(engine, document):
    _refused(engine, document, {"s": False})


def test_event_is_what_the_selection_is_executed_on(engine):
    operation = engine.prepare("subscription { number { position text } }", None, None)
    result = engine.execute(operation, Number(7))
    assert result == b'{"data":{"number":{"position":7,"text":"number 7"}}}'


# Errors of the client


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ nothing }", "Cannot query field 'nothing' on type 'Query'."),
        ("{ hello(name: 5) }", "String cannot represent a non string value: 5"),
        ("{", "Syntax Error: Expected Name, found <EOF>."),
        ("", "Syntax Error: Unexpected <EOF>."),
        ("{ ...A } fragment A on Query { ...A }", "Cannot spread fragment 'A' within itself."),
        ("{ ...Nowhere }", "Unknown fragment 'Nowhere'."),
    ],
)
def test_invalid_document_is_refused_with_the_reason(engine, query, message):
    assert _refused(engine, query)[0]["message"] == message


def test_at_most_a_handful_of_errors_is_listed(engine):
    assert len(_refused(engine, "{" + " ".join(f"no{n}" for n in range(100)) + "}")) <= operations.MAX_ERRORS + 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"o": "many"}, "Variable '$o' got invalid value 'many'; Int cannot represent non-integer value: 'many'"),
        ({"o": 2**31}, "Int cannot represent non 32-bit signed integer value"),
        ({"o": None}, "Variable '$o' of non-null type 'Int!' must not be null."),
        ({}, "Variable '$o' of required type 'Int!' was not provided."),
        (None, "Variable '$o' of required type 'Int!' was not provided."),
    ],
)
def test_variable_that_cannot_be_coerced_is_refused(engine, variables, message):
    document = "subscription($o: Int!) { number(over: $o) { text } }"
    assert message in _refused(engine, document, variables)[0]["message"]


def test_unknown_operation_name_is_refused_by_name(engine):
    error = _refused(engine, "query A { bye }", None, "B")[0]
    assert error["message"] == "There is no operation named 'B'."
    assert error["extensions"] == {"code": "BAD_REQUEST"}


@pytest.mark.parametrize("name", [None, ""])
def test_two_operations_need_a_name(engine, name):
    error = _refused(engine, "query A { bye } query B { hello }", None, name)[0]
    assert error["message"] == "Name one operation: operationName."
    assert error["extensions"] == {"code": "BAD_REQUEST"}


def test_document_without_an_operation_is_refused(engine):
    _refused(engine, "fragment A on Query { bye }")


@pytest.mark.parametrize("depth", [150, 190, 200, 249, 333, 490])
@pytest.mark.parametrize("opening", ["bye{", "... on Query{", "a:bye{"])
def test_deep_document_is_answered_or_refused_whatever_its_depth(engine, depth, opening):
    document = "{" + opening * depth + "bye" + "}" * depth + "}"
    assert _answer(engine, document)


def test_deep_list_in_a_document_is_refused(engine):
    _refused(engine, "{ hello(name: " + "[" * 490 + "]" * 490 + ") }")


def test_recursion_that_gets_past_the_parser_is_refused_all_the_same(engine, monkeypatch):
    def recurse(*_, **__):
        raise RecursionError

    monkeypatch.setattr(operations, "validate", recurse)
    error = _refused(engine, "{ hello }")[0]
    assert error == {"message": "The document nests too deep.", "extensions": {"code": "BAD_REQUEST"}}


def test_document_of_more_than_1000_tokens_is_refused_at_once(engine):
    document, errors = "{" + " ".join(f"a{n}: bye" for n in range(10_000)) + "}", []
    assert calls_of(lambda: errors.extend(_refused(engine, document))) < 100_000
    assert "1000 tokens" in errors[0]["message"]


def test_document_of_1000_tokens_is_accepted(engine):
    document = "{" + "bye " * 6 + ("...{" * 5 + "bye" + "}" * 5) * 62 + "}"  # 2 + 6 + 16 * 62
    assert engine.prepare(document, None, None).kind is OperationType.QUERY


def _refusal(engine, document, variables=None):
    with pytest.raises(BadOperation) as caught:
        engine.prepare(document, variables, None)
    return [(error["message"], error.get("extensions", {}).get("code")) for error in caught.value.errors]


def test_thirty_aliases_are_accepted_and_one_more_is_refused(engine):
    def document(count):
        return "subscription { number {" + " ".join(f"a{n}: text" for n in range(count)) + "} }"

    assert engine.prepare(document(30), None, None).kind is OperationType.SUBSCRIPTION
    refused = ("The document has 31 aliases, and may have 30.", "TOO_MANY_ALIASES")
    assert _refusal(engine, document(31)) == [refused]


def test_ten_fields_at_the_root_are_accepted_and_one_more_is_refused_wherever_it_stands(engine):
    fields = [f"a{n}: bye" for n in range(11)]
    assert engine.prepare(f"{{ {' '.join(fields[:10])} }}", None, None).kind is OperationType.QUERY
    document = f"{{ {' '.join(fields[:6])} ...F }} fragment F on Query {{ {' '.join(fields[6:])} }}"
    refused = ("The operation has 11 fields at its root, and may have 10.", "TOO_MANY_FIELDS")
    assert _refusal(engine, document) == [refused]


def test_no_more_than_a_few_errors_are_told_of_many_wrong_variables(engine):
    document = "subscription($of: [Int!]!) { tens(of: $of) { text } }"
    assert len(_refusal(engine, document, {"of": ["wrong"] * 20_000})) <= operations.MAX_ERRORS + 1


def test_fragments_that_multiply_are_answered_or_refused_in_an_instant(engine):
    names = [f"F{n}" for n in range(23)]
    spreads = [f"fragment {a} on Query{{...{b} ...{b}}}" for a, b in pairwise(names)]
    document = " ".join(["{...F0}", *spreads, "fragment F22 on Query{bye}"])
    answers = []
    assert calls_of(lambda: answers.append(_answer(engine, document))) < 100_000
    assert answers[0]


# Errors of ours


def test_internal_error_is_hidden_and_logged_once_under_the_number_shown(engine, caplog):
    with caplog.at_level(logging.ERROR):
        result = engine.execute(engine.prepare("{ secret bye }", None, None))
    assert SECRET.encode() not in result
    body = json.loads(result)
    assert body["data"] == {"secret": None, "bye": "bye"}
    (error,) = body["errors"]
    assert error["path"] == ["secret"]
    assert error["extensions"] == {"code": "INTERNAL_ERROR"}
    number = error["message"].removeprefix("Internal error ").rstrip(".")
    assert len(number) == 8
    (record,) = caplog.records
    assert number in record.getMessage()
    assert SECRET in str(record.exc_info[1])


def test_error_that_is_meant_for_the_client_is_shown(engine, caplog):
    body = json.loads(engine.execute(engine.prepare("{ refused }", None, None)))
    assert [(error["message"], error["extensions"]) for error in body["errors"]] == [
        ("Only on Sundays.", {"code": "BAD_INPUT"})
    ]
    assert caplog.records == []


@pytest.mark.parametrize("value", ["\ud800", {1, 2}, 2**70])
def test_value_that_json_cannot_hold_is_an_internal_error(value, caplog):
    schema = build_schema("scalar Any type Query { any: Any }")
    schema.query_type.fields["any"].resolve = lambda root, info: value
    engine = Engine(schema)
    body = json.loads(engine.execute(engine.prepare("{ any }", None, None)))
    assert body["data"] is None
    assert body["errors"][0]["extensions"] == {"code": "INTERNAL_ERROR"}
    assert len(caplog.records) == 1


def test_database_that_is_away_is_said_to_be_and_logged_in_one_line(engine, caplog):
    def fail(root, info):
        raise OperationalError("connection refused\n\tIs the server running at db.example?")

    engine.schema.query_type.fields["secret"].resolve = fail
    body = json.loads(engine.execute(engine.prepare("{ secret bye }", None, None)))
    (error,) = body["errors"]
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert error["message"] == "The database does not answer at the moment; try again later."
    assert [record.getMessage() for record in caplog.records] == ["The database does not answer (connection refused)."]
    assert caplog.records[0].exc_info is None


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        ("{", None),
        ("{ nothing }", None),
        ("query($n: String!) { hello(name: $n) }", None),
        ("query($n: String) { hello(name: $n) }", {"n": 5}),
        ("{ hello(name: 5) }", None),
        ("{ ...F } fragment F on Query { ...F }", None),
    ],
)
def test_each_error_in_a_document_or_its_variables_has_a_code(engine, document, variables):
    assert {code for _, code in _refusal(engine, document, variables)} == {"BAD_REQUEST"}
