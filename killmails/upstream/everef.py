"""EVE Ref's copies of the market's history: a file for each day.

Source: https://docs.everef.net/datasets/market-history.html
"""

from datetime import date

from killmails.upstream.http import Client
from killmails.upstream.zkillboard import USER_AGENT

FILE = "market-history-{day}.csv.bz2"


class EveRef:
    """For one thread."""

    def __init__(self, base_url: str, contact: str) -> None:
        self._base_url = base_url
        self._client = Client(USER_AGENT.format(contact=contact or "not given"), upstream="everef")

    def fetch_day(self, day: date) -> bytes | None:
        """The file of a day, packed, about a megabyte; None where there is none. Raises UpstreamError, Unacceptable."""
        answer = self._client.get(f"{self._base_url}/market-history/{day:%Y}/{FILE.format(day=day)}")
        return answer.body if answer.status == 200 else None
