"""What a subscription's result depends on, beside the event: not on the arguments of its root field.

Those say which events are wanted. So ten thousand filters around one selection are one execution for each event.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    OperationDefinitionNode,
    OperationType,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    print_ast,
    visit,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """One operation without its root field's arguments.

    `variables` are those that are used elsewhere, `fields` the names of all fields that it selects anywhere,
    `aliases` how many of these have another name in the answer.
    """

    text: str
    variables: frozenset[str]
    fields: frozenset[str]
    aliases: int

    def key(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Equal for requests that get equal results for the same event."""
        # As sent, because coerced ones may be anything; what else a client sends makes no difference. Not
        # orjson: it refuses long integers and lone surrogates.
        used = {name: value for name, value in variables.items() if name in self.variables}
        return self.text, json.dumps(used, sort_keys=True) if used else ""


def selections(document: DocumentNode) -> dict[str, Selection]:
    """Of each operation, by its name ("" where it has none)."""
    found = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            name = definition.name.value if definition.name else ""
            found[name] = _selection(document, definition)
    return found


def _selection(document: DocumentNode, operation: OperationDefinitionNode) -> Selection:
    # Parts are replaced, never changed: all the rest is shared with the document.
    stripped = copy.copy(operation)
    if operation.operation is OperationType.SUBSCRIPTION:
        stripped.selection_set = copy.copy(operation.selection_set)
        # A root field in a fragment keeps its arguments: right, and seldom.
        stripped.selection_set.selections = tuple(map(_without_arguments, operation.selection_set.selections))
    others = tuple(node for node in document.definitions if not isinstance(node, OperationDefinitionNode))
    used = _Names()
    visit(DocumentNode(definitions=(stripped, *others)), used)
    stripped.variable_definitions = tuple(
        node for node in operation.variable_definitions or () if node.variable.name.value in used.variables
    )
    text = print_ast(DocumentNode(definitions=(stripped, *others)))
    return Selection(text, frozenset(used.variables), frozenset(used.fields), used.aliases)


def _without_arguments(node: Any) -> Any:
    if isinstance(node, FieldNode):
        node = copy.copy(node)
        node.arguments = ()
    return node


class _Names(Visitor):
    """Those of all fields, and of the variables that are used."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: set[str] = set()
        self.variables: set[str] = set()
        self.aliases = 0

    def enter_field(self, node: FieldNode, *_: object) -> None:
        self.fields.add(node.name.value)
        self.aliases += node.alias is not None

    def enter_variable_definition(self, node: VariableDefinitionNode, *_: object) -> Any:
        return self.SKIP

    def enter_variable(self, node: VariableNode, *_: object) -> None:
        self.variables.add(node.name.value)
