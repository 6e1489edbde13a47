"""Who polls the feed: a lease in the cursor's row, by the database's clock, taken and renewed by compare-and-set."""

from datetime import timedelta

from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Now

from killmails.models import FeedCursor

FEED = "r2z2"
LEASE = timedelta(seconds=20)  # more than one question takes; after a kill -9 another goes on within this + STANDBY
STANDBY = 2.0  # seconds between two attempts of a worker that waits
RENEW = 3.0  # seconds; the holder renews at least this often


def take_lease(holder: str) -> FeedCursor | None:
    """The cursor, when the lease is ours: renewed, or taken over because it had run out. Else None."""
    FeedCursor.objects.bulk_create([FeedCursor(name=FEED)], ignore_conflicts=True)
    free = Q(lease_holder=holder) | Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lt=Now())
    taken = FeedCursor.objects.filter(free, name=FEED).update(
        # The fence counts holders.
        fence=Case(When(lease_holder=holder, then=F("fence")), default=F("fence") + Value(1)),
        lease_since=Case(When(lease_holder=holder, then=F("lease_since")), default=Now()),
        lease_holder=holder,
        lease_expires_at=Now() + LEASE,
    )
    return FeedCursor.objects.get(name=FEED) if taken else None


def is_mine(cursor: FeedCursor) -> Q:
    """Whether the cursor is still where it was when this worker took the lease."""
    return Q(name=FEED, lease_holder=cursor.lease_holder, fence=cursor.fence, next_sequence=cursor.next_sequence)


def give_up_lease(holder: str) -> None:
    """Lets the next worker begin at once."""
    FeedCursor.objects.filter(name=FEED, lease_holder=holder).update(lease_expires_at=None)


def who_follows() -> str:
    """The holder of the lease and since when, for people."""
    holder, since = FeedCursor.objects.values_list("lease_holder", "lease_since").get(name=FEED)
    return f"{holder} since {since:%Y-%m-%d %H:%M:%S} UTC" if since else holder


def next_sequence() -> int | None:
    """Where the feed goes on; None when it has never begun."""
    return FeedCursor.objects.filter(name=FEED).values_list("next_sequence", flat=True).first()
