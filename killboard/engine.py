"""The one engine of this process: HTTP and websocket share its parsed documents."""

from killboard.schema import schema
from realtime.operations import Engine

engine = Engine(schema.graphql_schema)
