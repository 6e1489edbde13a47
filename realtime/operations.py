"""GraphQL operations: parsed and validated once, executed often. The same for HTTP and websocket."""

import json
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    execute_sync,
    get_operation_ast,
    parse,
    print_ast,
    validate,
    visit,
)
from graphql.execution.collect_fields import collect_fields
from graphql.execution.values import get_argument_values, get_variable_values

from realtime.log import Stream

logger = logging.getLogger(__name__)

MAX_TOKENS = 1000
MAX_ERRORS = 5
CACHED_DOCUMENTS = 500


_Document = tuple[DocumentNode, str, frozenset[str]]


class BadOperation(Exception):
    """A request that cannot be executed; `errors` are for the client, in the form of the GraphQL specification."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = [dict(error.formatted) for error in errors]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a valid document, with the variables of one request, ready to execute."""

    document: DocumentNode
    text: str  # the document printed anew, so that spacing and comments make no difference
    fields: frozenset[str]  # the names of all fields that it selects anywhere, for loading ahead
    definition: OperationDefinitionNode
    name: str | None
    variables: dict[str, Any]  # coerced; `raw_variables` are as sent
    raw_variables: Mapping[str, Any]

    @property
    def kind(self) -> OperationType:
        return self.definition.operation

    @property
    def key(self) -> tuple[str, str, str]:
        """Operations with equal keys give equal results for the same event."""
        # As sent, because coerced ones may be anything; and only those that the operation declares: what
        # else a client sends makes no difference. Not orjson: it refuses long integers and lone surrogates.
        declared = {node.variable.name.value for node in self.definition.variable_definitions or ()}
        variables = {name: value for name, value in self.raw_variables.items() if name in declared}
        name = self.definition.name.value if self.definition.name else ""
        return self.text, name, json.dumps(variables, sort_keys=True)


class Engine:
    """Executes operations of one schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        self._documents: OrderedDict[str, _Document] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, query: str, variables: Mapping[str, Any] | None, name: str | None) -> Operation:
        """Raises BadOperation. Takes 2 ms for a new document, nearly nothing for one that was seen before."""
        document, text, fields = self._document(query)
        definition = get_operation_ast(document, name)
        if definition is None:
            what = f"There is no operation named {name!r}." if name else "Name one operation: operationName."
            raise BadOperation([_bad_request(what)])
        coerced = get_variable_values(self.schema, definition.variable_definitions or (), dict(variables or {}))
        if isinstance(coerced, list):
            raise BadOperation(coerced)
        return Operation(document, text, fields, definition, name, coerced, variables or {})

    def _document(self, query: str) -> _Document:
        with self._lock:
            if query in self._documents:
                self._documents.move_to_end(query)
                return self._documents[query]
        try:
            document = parse(query, no_location=True, max_tokens=MAX_TOKENS)
            # Raises as well: at the root of a subscription, for @skip(if: $variable).
            errors = validate(self.schema, document, max_errors=MAX_ERRORS)
            entry = document, print_ast(document), _field_names(document)
        except GraphQLError as error:
            raise BadOperation([error]) from error
        except RecursionError as error:
            raise BadOperation([_bad_request("The document nests too deep.")]) from error
        if errors:
            raise BadOperation(errors)
        with self._lock:
            self._documents[query] = entry
            if len(self._documents) > CACHED_DOCUMENTS:
                self._documents.popitem(last=False)
        return entry

    def stream(self, operation: Operation) -> Stream:
        """What a subscription wants: the answer of its root field's subscribe function. Raises BadOperation."""
        field_node = self._root_field(operation)
        field = self._subscription_type().fields[field_node.name.value]
        arguments = get_argument_values(field, field_node, operation.variables)
        return field.subscribe(None, None, **arguments)

    def _root_field(self, operation: Operation) -> FieldNode:
        """It may stand in a fragment, and beside others that are skipped."""
        definitions = operation.document.definitions
        fragments = {node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)}
        root, selected = self._subscription_type(), operation.definition.selection_set
        fields = collect_fields(self.schema, fragments, operation.variables, root, selected)
        if not fields:
            raise BadOperation([_bad_request("The subscription skips its only field.")])
        return next(iter(fields.values()))[0]

    def _subscription_type(self) -> GraphQLObjectType:
        if self.schema.subscription_type is None:
            raise BadOperation([_bad_request("There are no subscriptions here.")])
        return self.schema.subscription_type

    def execute(self, operation: Operation, root: object = None) -> bytes:
        """The result as JSON: `{"data": …}` and, if there were any, `"errors"`. Resolvers find us as `info.context`."""
        result = execute_sync(
            self.schema,
            operation.document,
            root_value=root,
            context_value=operation,
            variable_values=dict(operation.raw_variables),
            operation_name=operation.name,
        )
        return as_json(result)


class _FieldNames(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_field(self, node: FieldNode, *_: object) -> None:
        self.names.add(node.name.value)


def _field_names(document: DocumentNode) -> frozenset[str]:
    visitor = _FieldNames()
    visit(document, visitor)
    return frozenset(visitor.names)


def as_json(result: ExecutionResult) -> bytes:
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body = {"errors": [_shown(error) for error in result.errors], **body}
    try:
        return orjson.dumps(body)
    except TypeError as error:  # a value that JSON cannot hold: a resolver's fault, not the client's
        unserialisable = GraphQLError("Unserialisable", original_error=error)
        return orjson.dumps({"errors": [_shown(unserialisable)], "data": None})


def _shown(error: GraphQLError) -> dict[str, Any]:
    """For the client: what is meant for it, word by word; of anything else only a number to find it in our log."""
    if error.original_error is None or isinstance(error.original_error, GraphQLError):
        return dict(error.formatted)
    number = secrets.token_hex(4)
    logger.error("Internal error %s at %s", number, error.path, exc_info=error.original_error)
    hidden = GraphQLError(
        f"Internal error {number}.",
        path=error.path,
        extensions={"code": "INTERNAL_ERROR"},
    )
    return dict(hidden.formatted)


def _bad_request(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_REQUEST"})
