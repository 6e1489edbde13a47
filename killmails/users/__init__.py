"""Users' own killmails: who logged in, the rights they gave us, their lists, and what is fetched from them."""
