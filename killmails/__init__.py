"""What the board knows of EVE: killmails, their upstream, their storage, their GraphQL types."""
