"""The GraphQL types, queries and subscriptions of killmails."""
