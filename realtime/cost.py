"""What a document may cost: looked at before anything is executed, and partly before it is validated.

Validating compares each field with all others of the same name, and executing multiplies whatever lists there are, so
both are bounded here, in the order of the document's own size.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    OperationType,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

MAX_REPEATS = 10_000  # pairs of fields with the same name, which validation compares
MAX_DEPTH = 10  # fields in fields
MAX_COST = 100_000  # fields that a query may be answered with: 100 killmails with all but fittings and prices
MAX_EVENT_COST = 4_000  # fields of one event: a killmail with everything
LIST = 10  # how many a list is taken to hold that has no `first`
INNER_LIST = 2  # and one within such a list: what a container holds, say
PAGE = 100  # what `first` is taken to be where it is a variable
# The schema's own lists lead into each other without end; nobody needs more of them in each other.
ENDLESS = {"fields", "interfaces", "possibleTypes", "inputFields"}
MAX_ENDLESS = 3
META = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}


class Way(NamedTuple):
    """How one came to a selection: `page`: how many the list among its fields holds, where that was said; `listed`:
    whether through a list without `first`; `endless`: through how many of the schema's own lists.
    """

    page: int | None = None
    listed: bool = False
    endless: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """`fields`: how many may have to be answered; `depth`: how deep they lie."""

    fields: int = 0
    depth: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.fields + other.fields, max(self.depth, other.depth))


def check_repeats(document: DocumentNode) -> None:
    """Raises GraphQLError where validation would take too long."""
    names = Counter(node.alias.value if node.alias else node.name.value for node in _all_fields(document))
    if sum(count * count for count in names.values()) > MAX_REPEATS:
        name, count = names.most_common(1)[0]
        raise _refused("TOO_MANY_FIELDS", f"The document selects {name} {count} times; select each field once.")


def _all_fields(document: DocumentNode) -> Iterator[FieldNode]:
    sets = [node.selection_set for node in document.definitions if hasattr(node, "selection_set")]
    while sets:
        for node in sets.pop().selections:
            if isinstance(node, FieldNode):
                yield node
            if isinstance(node, (FieldNode, InlineFragmentNode)) and node.selection_set:
                sets.append(node.selection_set)


def check_cost(schema: GraphQLSchema, document: DocumentNode) -> None:
    """Raises GraphQLError where an operation of this valid document costs too much. Each fragment is looked at once."""
    measure = _Measure(schema, document)
    for node in document.definitions:
        root = schema.get_root_type(node.operation) if isinstance(node, OperationDefinitionNode) else None
        if root is None or not isinstance(node, OperationDefinitionNode):
            continue
        cost = measure.selections(node.selection_set, root, Way())
        if cost.depth > MAX_DEPTH:
            raise _refused("DEPTH", f"Fields lie {cost.depth} deep, and may lie {MAX_DEPTH} deep.")
        most = MAX_EVENT_COST if node.operation is OperationType.SUBSCRIPTION else MAX_COST
        if cost.fields > most:
            raise _refused(
                "COST", f"The answer may have {cost.fields} fields, and may have {most}; ask for less at once."
            )


class _Measure:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        definitions = document.definitions
        self._fragments = {node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)}
        self._seen: dict[tuple[str, Way], Cost] = {}

    def selections(self, node: SelectionSetNode, parent: GraphQLNamedType, way: Way) -> Cost:
        cost = Cost()
        for selection in node.selections:
            if isinstance(selection, FieldNode):
                cost += self._field(selection, parent, way)
            elif isinstance(selection, InlineFragmentNode):
                named = selection.type_condition and self._schema.get_type(selection.type_condition.name.value)
                cost += self.selections(selection.selection_set, named or parent, way)
            elif isinstance(selection, FragmentSpreadNode):
                cost += self._fragment(selection.name.value, way)
        return cost

    def _fragment(self, name: str, way: Way) -> Cost:
        if (name, way) not in self._seen:
            fragment = self._fragments[name]
            named = self._schema.get_type(fragment.type_condition.name.value)
            assert named is not None  # the document is valid
            self._seen[name, way] = self.selections(fragment.selection_set, named, way)
        return self._seen[name, way]

    def _field(self, node: FieldNode, parent: GraphQLNamedType, way: Way) -> Cost:
        name = node.name.value
        definition: Any = META.get(name) or getattr(parent, "fields", {}).get(name)
        if node.selection_set is None or definition is None:
            return Cost(1, 1)
        named = get_named_type(definition.type)
        if name.startswith("__") or parent.name.startswith("__"):
            endless = way.endless + (name in ENDLESS)
            if endless > MAX_ENDLESS:
                raise _refused("DEPTH", f"The schema's own lists nest {endless} deep, and may nest {MAX_ENDLESS} deep.")
            inner = self.selections(node.selection_set, named, Way(endless=endless))
            return Cost(1 + inner.fields, 1)  # the schema's own depth is bounded by its lists
        times, listed = 1, way.listed
        if is_list_type(get_nullable_type(definition.type)):
            times = way.page if way.page is not None else INNER_LIST if way.listed else LIST
            listed = way.listed or way.page is None
        inner = self.selections(node.selection_set, named, Way(_page(node, definition), listed))
        return Cost(1 + times * inner.fields, 1 + inner.depth)


def _page(node: FieldNode, definition: Any) -> int | None:
    """How many the field may be answered with, where it has the argument `first`."""
    if "first" not in definition.args:
        return None
    given = next((argument.value for argument in node.arguments or () if argument.name.value == "first"), None)
    if given is None:
        default = definition.args["first"].default_value
        return default if isinstance(default, int) else PAGE
    return max(0, min(int(given.value), PAGE)) if isinstance(given, IntValueNode) else PAGE


def _refused(code: str, text: str) -> GraphQLError:
    return GraphQLError(text, extensions={"code": code})
