"""How single values look: times, ISK, links. All that comes from outside is escaped."""

from datetime import UTC, datetime
from decimal import Decimal

from django.contrib.admin.utils import quote
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

NOTHING = "-"
SCALES = ((10**12, "t"), (10**9, "b"), (10**6, "m"), (10**3, "k"))  # as players write them


def moment(time: datetime | None) -> str:
    """2026-11-23 12:00:00, EVE's time (UTC)."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if time else NOTHING


def ago(time: datetime | None) -> str:
    """The moment, and how long that is from now: `... (12 s ago)`, `... (in 3 min)`."""
    if time is None:
        return NOTHING
    seconds = (timezone.now() - time).total_seconds()
    span = _span(abs(seconds))
    return f"{moment(time)} ({span} ago)" if seconds >= 0 else f"{moment(time)} (in {span})"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"


def isk(value: Decimal | None) -> SafeString | str:
    """1.23 b, with the exact ISK in the title."""
    if value is None:
        return NOTHING
    return format_html('<span class="isk" title="{} ISK">{}</span>', f"{value:,.2f}", short_isk(value))


def short_isk(value: Decimal) -> str:
    for scale, name in SCALES:
        # 999,999,999 is 1.00 b, not 1000.00 m.
        if round(value * 1000 / scale, 2) >= 1000:
            return f"{value / scale:,.2f} {name}"
    return f"{value:,.2f}"


def link(model: type[Model], pk: object, text: object) -> SafeString:
    """A link to the page of one row."""
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[quote(pk)])
    return format_html('<a href="{}">{}</a>', address, text)
