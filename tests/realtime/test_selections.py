"""What makes two operations give equal results for the same event, and what does not."""

import pytest
from graphql import build_schema, parse

from realtime.operations import Engine
from realtime.selections import selections
from tests.realtime.memory_log import Number, build_numbers_schema

SDL = """
type Query { hello: String }
type Subscription { events(after: String, over: Int, filter: Filter): Event! other(over: Int): Event! }
input Filter { over: Int, any: [Filter!] }
type Event { position: Int! name(in: String, short: Boolean): String! next(steps: Int): Event! }
"""
A = "subscription A($o: Int) { events(over: $o) { position } }"


@pytest.fixture(scope="module")
def engine():
    return Engine(build_schema(SDL))


def _key(engine, document, variables=None, name=None):
    return engine.prepare(document, variables, name).selection


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # The root field's arguments, however they are written.
        ("subscription { events { position } }", "subscription { events(over: 5) { position } }"),
        ('subscription { events(after: "e1:1") { position } }', 'subscription { events(after: "e1:2") { position } }'),
        (
            "subscription { events(filter: {over: 1}) { position } }",
            "subscription { events(filter: {any: [{over: 2}, {over: 3}]}) { position } }",
        ),
        ("subscription { e: events(over: 1) { position } }", "subscription { e: events(over: 2) { position } }"),
        ("subscription($o: Int) { events(over: $o) { position } }", "subscription { events(over: 1) { position } }"),
        # Spaces and comments.
        ("subscription { events { position } }", "subscription{events{position}} # mine"),
        (
            "subscription { events(over: 1) { ...F } } fragment F on Event { position }",
            "subscription { events(over: 2) { ...F } } fragment F on Event { position }",
        ),
    ],
)
def test_arguments_of_the_root_field_make_no_difference(engine, one, other):
    assert _key(engine, one) == _key(engine, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("subscription { events { position } }", "subscription { events { name } }"),
        ("subscription { events { position } }", "subscription { e: events { position } }"),
        ("subscription { events { position } }", "subscription { other { position } }"),
        ("subscription { events { position } }", "subscription { events { p: position } }"),
        ('subscription { events { name(in: "de") } }', 'subscription { events { name(in: "fr") } }'),
        ("subscription { events { next(steps: 1) { name } } }", "subscription { events { next(steps: 2) { name } } }"),
        (
            'subscription { events { ...F } } fragment F on Event { name(in: "de") }',
            'subscription { events { ...F } } fragment F on Event { name(in: "fr") }',
        ),
        (
            "subscription { events { ...F } } fragment F on Event { name }",
            "subscription { events { ...F } } fragment F on Event { position }",
        ),
        ("subscription { events { position name @skip(if: true) } }", "subscription { events { position name } }"),
    ],
)
def test_other_selections_are_apart(engine, one, other):
    assert _key(engine, one) != _key(engine, other)


DOCUMENT = """
subscription($o: Int, $in: String = "en", $short: Boolean, $with: Boolean = true) {
  events(over: $o) { position @include(if: $with) name(in: $in) ...F }
}
fragment F on Event { next { name(short: $short) } }
"""


@pytest.mark.parametrize(
    ("variables", "same"),
    [
        ({"o": 1}, True),
        ({"o": None}, True),
        ({"unknown": 5}, True),
        ({"in": "de"}, False),
        ({"short": True}, False),
        ({"with": False}, False),
    ],
)
def test_variables_count_where_they_are_used_outside_of_the_root_fields_arguments(engine, variables, same):
    assert (_key(engine, DOCUMENT, variables) == _key(engine, DOCUMENT)) is same


def test_variable_that_is_used_in_both_places_counts(engine):
    document = "subscription($n: Int) { events(over: $n) { next(steps: $n) { name } } }"
    assert _key(engine, document, {"n": 1}) != _key(engine, document, {"n": 2})


def test_variable_within_a_list_or_an_object_counts_where_the_argument_does(engine):
    document = "subscription($o: Int) { events(filter: {any: [{over: $o}]}) { position } }"
    assert _key(engine, document, {"o": 1}) == _key(engine, document, {"o": 2})


def test_variable_of_a_directive_at_the_root_counts():
    (selection,) = selections(parse("subscription($w: Boolean!) { events @include(if: $w) { position } }")).values()
    assert selection.variables == {"w"}


def test_default_of_a_variable_that_counts_is_part_of_the_selection(engine):
    document = 'subscription($in: String = "{}") {{ events {{ name(in: $in) }} }}'
    assert _key(engine, document.format("de")) != _key(engine, document.format("fr"))
    unused = "subscription($o: Int = {}) {{ events(over: $o) {{ name }} }}"
    assert _key(engine, unused.format(1)) == _key(engine, unused.format(2))


def test_root_field_in_a_fragment_keeps_its_arguments(engine):
    document = "subscription {{ ...F }} fragment F on Subscription {{ events(over: {}) {{ position }} }}"
    assert _key(engine, document.format(1)) != _key(engine, document.format(2))


def test_operations_of_one_document_are_apart_and_each_is_what_it_is_alone(engine):
    b = "subscription B { events(over: 1) { name } }"
    assert _key(engine, A + b, None, "A") != _key(engine, A + b, None, "B")
    assert _key(engine, A + b, None, "A") == _key(engine, b + A, None, "A") == _key(engine, A)
    assert _key(engine, A + b, {"o": 5}, "B") == _key(engine, b)


@pytest.mark.parametrize(
    ("one", "other"), [({"in": "1"}, {"in": "1", "short": None}), ({"short": True}, {}), ({"in": ""}, {"in": None})]
)
def test_variables_are_compared_as_they_were_sent(engine, one, other):
    assert _key(engine, DOCUMENT, one) != _key(engine, DOCUMENT, other)


def test_document_is_left_as_it_was(engine):
    operation = engine.prepare(A, {"o": 3}, None)
    root_field = operation.definition.selection_set.selections[0]
    assert [argument.name.value for argument in root_field.arguments] == ["over"]
    assert [node.variable.name.value for node in operation.definition.variable_definitions] == ["o"]


def test_arguments_of_a_query_count():
    engine = Engine(build_numbers_schema())
    one, other = ("query($n: String) { hello(name: $n) }", {"n": "a"}), ('{ hello(name: "b") }', None)
    assert _key(engine, *one) != _key(engine, *other)
    assert _key(engine, '{ hello(name: "a") }') != _key(engine, '{ hello(name: "b") }')


def test_equal_selections_give_equal_results_for_the_same_event():
    engine = Engine(build_numbers_schema())
    documents = [
        ("subscription($o: Int) { number(over: $o) { position text } }", {"o": 4}),
        ("subscription { number(over: 2) { position text } }", None),
        ("subscription($x: Int = 7, $o: Int) { number(over: $x) { position text } }".replace(", $o: Int", ""), None),
    ]
    operations = [engine.prepare(document, variables, None) for document, variables in documents]
    assert len({operation.selection for operation in operations}) == 1
    assert len({engine.execute(operation, Number(9)) for operation in operations}) == 1
