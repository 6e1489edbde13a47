"""GraphQL operations: parsed and validated once, executed often. The same for HTTP and websocket."""

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from django.db import InterfaceError, OperationalError
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
    execute_sync,
    get_operation_ast,
    parse,
    validate,
)
from graphql.execution.collect_fields import collect_fields
from graphql.execution.values import get_argument_values, get_variable_values

from realtime.callers import NOBODY, Caller
from realtime.cost import check_cost, check_repeats
from realtime.log import Stream
from realtime.selections import Selection, selections
from realtime.watch import Watch

TOO_SLOW = "The database would take too long for this; ask for less: since a time, or by a field that has an index."
DATABASE_AWAY = "The database does not answer at the moment; try again later."

logger = logging.getLogger(__name__)

MAX_TOKENS = 1000
MAX_ERRORS = 5
MAX_ALIASES = 30  # each is one more answer to compute
MAX_ROOT_FIELDS = 10
CACHED_SIZE = 500_000  # characters of documents that are kept; parsed, they take some fifty times that


class _Document(NamedTuple):
    """A valid document."""

    node: DocumentNode
    selections: dict[str, Selection]  # by name of the operation, "" where it has none


class BadOperation(Exception):
    """A request that cannot be executed; `errors` are for the client, in the form of the GraphQL specification."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = [_with_code(error) for error in errors]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a valid document, with the variables of one request, ready to execute."""

    document: DocumentNode
    fields: frozenset[str]  # the names of all fields that it selects anywhere, for loading ahead
    selection: tuple[str, str]  # operations with equal selections give equal results for the same event
    definition: OperationDefinitionNode
    name: str | None
    variables: dict[str, Any]  # coerced; `raw_variables` are as sent
    raw_variables: Mapping[str, Any]
    caller: Caller = NOBODY  # resolvers find it as `info.context.caller`

    @property
    def kind(self) -> OperationType:
        return self.definition.operation


class Engine:
    """Executes operations of one schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        self._documents: OrderedDict[str, _Document | list[GraphQLError]] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    def prepare(
        self, query: str, variables: Mapping[str, Any] | None, name: str | None, caller: Caller = NOBODY
    ) -> Operation:
        """Raises BadOperation. Takes 2 ms for a new document, nearly nothing for one that was seen before."""
        document = self._document(query)
        definition = get_operation_ast(document.node, name)
        if definition is None:
            what = f"There is no operation named {name!r}." if name else "Name one operation: operationName."
            raise BadOperation([_bad_request(what)])
        definitions = definition.variable_definitions or ()
        coerced = get_variable_values(self.schema, definitions, dict(variables or {}), MAX_ERRORS)
        if isinstance(coerced, list):
            raise BadOperation(coerced)
        self._check_root(document.node, definition, coerced)
        selection = document.selections[definition.name.value if definition.name else ""]
        key, sent = selection.key(variables or {}), variables or {}
        return Operation(document.node, selection.fields, key, definition, name, coerced, sent, caller)

    def knows(self, query: str) -> bool:
        """Whether `prepare` takes nearly no time."""
        return query in self._documents

    def _document(self, query: str) -> _Document:
        with self._lock:
            entry = self._documents.get(query)
            if entry is not None:
                self._documents.move_to_end(query)
        if entry is None:
            entry = self._read(query)
            self._keep(query, entry)
        if isinstance(entry, _Document):
            return entry
        raise BadOperation(entry)

    def _read(self, query: str) -> "_Document | list[GraphQLError]":
        """The document, or why it is none: whoever sends it again is told so at once."""
        try:
            document = parse(query, no_location=True, max_tokens=MAX_TOKENS)
            check_repeats(document)
            # Raises as well: at the root of a subscription, for @skip(if: $variable).
            errors = validate(self.schema, document, max_errors=MAX_ERRORS)
            if errors:
                return errors
            check_cost(self.schema, document)
            entry = _Document(document, selections(document))
            _check_aliases(entry)
        except GraphQLError as error:
            return [error.with_traceback(None)]
        except RecursionError:
            return [_bad_request("The document nests too deep.")]
        return entry

    def _keep(self, query: str, entry: "_Document | list[GraphQLError]") -> None:
        with self._lock:
            if query not in self._documents:
                self._documents[query] = entry
                self._cached += len(query)
            while self._cached > CACHED_SIZE:
                self._cached -= len(self._documents.popitem(last=False)[0])

    def _check_root(self, document: DocumentNode, definition: OperationDefinitionNode, variables: Any) -> None:
        root = self.schema.get_root_type(definition.operation)
        if root is not None:
            count = len(self._fields_of(document, definition, variables, root))
            if count > MAX_ROOT_FIELDS:
                text = f"The operation has {count} fields at its root, and may have {MAX_ROOT_FIELDS}."
                raise BadOperation([GraphQLError(text, extensions={"code": "TOO_MANY_FIELDS"})])

    def _fields_of(
        self, document: DocumentNode, definition: OperationDefinitionNode, variables: Any, root: GraphQLObjectType
    ) -> dict[str, list[FieldNode]]:
        """Those at the root, by the names of their answers. They may stand in fragments, or be skipped."""
        fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
        return collect_fields(self.schema, fragments, variables, root, definition.selection_set)

    def stream(self, operation: Operation) -> Stream | Watch:
        """What a subscription wants: the answer of its root field's subscribe function, which is told who calls.

        Raises BadOperation.
        """
        field_node = self._root_field(operation)
        field = self._subscription_type().fields[field_node.name.value]
        try:
            arguments = get_argument_values(field, field_node, operation.variables)
            return field.subscribe(None, operation.caller, **arguments)
        except GraphQLError as error:
            raise BadOperation([error]) from error

    def _root_field(self, operation: Operation) -> FieldNode:
        root = self._subscription_type()
        fields = self._fields_of(operation.document, operation.definition, operation.variables, root)
        if not fields:
            raise BadOperation([_bad_request("The subscription skips its only field.")])
        return next(iter(fields.values()))[0]

    def _subscription_type(self) -> GraphQLObjectType:
        if self.schema.subscription_type is None:
            raise BadOperation([_bad_request("There are no subscriptions here.")])
        return self.schema.subscription_type

    def execute(self, operation: Operation, root: object = None) -> bytes:
        """The result as JSON: `{"data": …}` and, if there were any, `"errors"`."""
        return as_json(self.result(operation, root))

    def result(self, operation: Operation, root: object = None) -> ExecutionResult:
        """Resolvers find us as `info.context`."""
        return execute_sync(
            self.schema,
            operation.document,
            root_value=root,
            context_value=operation,
            variable_values=dict(operation.raw_variables),
            operation_name=operation.name,
        )


def _check_aliases(document: _Document) -> None:
    count = sum(selection.aliases for selection in document.selections.values())
    if count > MAX_ALIASES:
        text = f"The document has {count} aliases, and may have {MAX_ALIASES}."
        raise GraphQLError(text, extensions={"code": "TOO_MANY_ALIASES"})


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
        return _with_code(error)
    if _took_too_long(error.original_error):
        return dict(GraphQLError(TOO_SLOW, path=error.path, extensions={"code": "TOO_SLOW"}).formatted)
    if is_away(error.original_error):
        logger.error("The database does not answer (%s).", str(error.original_error).strip().partition("\n")[0])
        away = GraphQLError(DATABASE_AWAY, path=error.path, extensions={"code": "UNAVAILABLE"})
        return dict(away.formatted)
    number = secrets.token_hex(4)
    logger.error("Internal error %s at %s", number, error.path, exc_info=error.original_error)
    hidden = GraphQLError(
        f"Internal error {number}.",
        path=error.path,
        extensions={"code": "INTERNAL_ERROR"},
    )
    return dict(hidden.formatted)


def is_away(error: Exception | None) -> bool:
    """Whether it says that the database does not answer."""
    return isinstance(error, OperationalError | InterfaceError) and not _took_too_long(error)


def _took_too_long(error: Exception | None) -> bool:
    """Whether PostgreSQL ended the statement at its time limit (SQLSTATE 57014, query_canceled)."""
    return getattr(error.__cause__, "sqlstate", None) == "57014" if error else False


def _with_code(error: GraphQLError) -> dict[str, Any]:
    """What graphql-core itself finds wrong has no code of its own."""
    return {**error.formatted, "extensions": {"code": "BAD_REQUEST", **(error.extensions or {})}}


def _bad_request(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "BAD_REQUEST"})
