"""The killmail filter, defined once: a condition for queries, a predicate for the stream, keys for an index.

`read_filter` makes one from what a client sent. Each thing that can be asked is a row of the table in `clauses`.
"""

from killmails.filters.clauses import Key
from killmails.filters.filter import Finding, KillmailFilter
from killmails.filters.found import keys_of
from killmails.filters.reading import MAX_DEPTH, MAX_FILTERS, MAX_VALUES, read_filter

__all__ = ["MAX_DEPTH", "MAX_FILTERS", "MAX_VALUES", "Finding", "Key", "KillmailFilter", "keys_of", "read_filter"]
