"""A subscription to something that is not in the log; `realtime.watches` looks for all of them."""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watch:
    """What a subscribe function returns instead of a stream: told now, and again whenever what is behind it changes.

    `key`: what the probe is asked about.
    """

    key: Hashable
