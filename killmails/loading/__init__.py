"""Loading killmails for readers: few queries, the same number for one killmail as for a hundred.

What many killmails name is one object for all of them.
"""

from killmails.loading.entities import StaticRows
from killmails.loading.killmails import ATTACKER_ROWS, Bodies, Item, load, rows_by

__all__ = ["ATTACKER_ROWS", "Bodies", "Item", "StaticRows", "load", "rows_by"]
