"""Where characters and corporations are today, which is not where they were on their killmails."""

from killmails.loading.entities import Entities, StaticRows, follow, references_of
from killmails.models import Character, Corporation

# GraphQL's names, and the keys that they follow.
OF_CHARACTER = {"currentCorporation": "corporation", "currentAlliance": "alliance"}
OF_CORPORATION = {"currentAlliance": "alliance"}


def load_memberships(entities: Entities, asked: frozenset[str]) -> None:
    """Of the characters and corporations among these, and of the corporations that come with that. Two queries."""
    references = references_of(list(entities.get(Character, {}).values()), OF_CHARACTER, asked)
    references += references_of(list(entities.get(Corporation, {}).values()), OF_CORPORATION, asked)
    found = follow(references, StaticRows()) if references else {}
    if references := references_of(list(found.get(Corporation, {}).values()), OF_CORPORATION, asked):
        follow(references, StaticRows())
