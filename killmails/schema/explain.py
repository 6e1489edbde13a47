"""explainMatch: why a killmail passes a filter or does not, clause by clause."""

from collections.abc import Mapping
from typing import Any

import graphene

from killmails import models
from killmails.filters import Finding
from killmails.loading import ATTACKER_ROWS, load
from killmails.schema.filters import read_filter


class ClauseMatch(graphene.ObjectType):
    """One clause of the filter, and what the killmail has. Those of `any` and `not` come with their own truth."""

    path = graphene.String(required=True, description="Which clause: `filter.any[1].minValue`.")
    wanted = graphene.String(required=True, description="What the clause wants, in words.")
    found = graphene.String(required=True, description="What the killmail has, in words.")
    matches = graphene.Boolean(required=True, description="Whether the clause is met.")


class Explanation(graphene.ObjectType):
    """Whether a killmail passes a filter, and why."""

    matches = graphene.Boolean(required=True, description="Whether the killmail passes.")
    clauses = graphene.List(graphene.NonNull(ClauseMatch), required=True, description="Clause by clause.")


def explain(killmail_id: int, value: Mapping[str, Any]) -> Explanation | None:
    """None if the board does not have the killmail."""
    wanted = read_filter(value)
    query = models.Killmail.objects.filter(pk=killmail_id)
    killmail = next(iter(load(query, {ATTACKER_ROWS} if wanted.needs_attackers else ())), None)
    if killmail is None:
        return None
    return Explanation(matches=wanted.wants(killmail), clauses=list(map(_clause, wanted.findings(killmail))))


def _clause(finding: Finding) -> ClauseMatch:
    return ClauseMatch(**finding._asdict())
