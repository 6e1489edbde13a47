"""Where the feed and the log stand: cursor, gaps, head, events."""

from django.contrib import admin
from django.utils.safestring import SafeString

from killmails.admin import columns
from killmails.admin.readonly import NumberSearch, ReadOnlyAdmin
from killmails.models import FeedCursor, FeedGap, Killmail, KillmailEvent, LogHead


@admin.register(FeedCursor)
class FeedCursorAdmin(ReadOnlyAdmin):
    """What tells whether the feed moves: when it did last, what the upstream said, who holds the lease."""

    list_display = (
        "name", "next_sequence", "moved", "last_answer", "silent_until", "open_gaps", "lease_until", "tries",
    )  # fmt: skip
    fields = (
        "name", "next_sequence", "moved", "last_answer", "missing", "silent_until", "tries", "open_gaps",
        "lease_holder", "lease_until", "fence", "placeholders", "ignored_updates",
    )  # fmt: skip
    readonly_fields = ("moved", "missing", "silent_until", "open_gaps", "lease_until")

    @admin.display(description="moved at")
    def moved(self, cursor: FeedCursor) -> str:
        return columns.ago(cursor.moved_at)

    @admin.display(description="next sequence missing since")
    def missing(self, cursor: FeedCursor) -> str:
        return columns.ago(cursor.missing_since)

    @admin.display(description="upstream asked again at")
    def silent_until(self, cursor: FeedCursor) -> str:
        return columns.ago(cursor.not_before)

    @admin.display(description="lease runs out at")
    def lease_until(self, cursor: FeedCursor) -> str:
        return columns.ago(cursor.lease_expires_at)

    @admin.display(description="open gaps")
    def open_gaps(self, cursor: FeedCursor) -> int:
        return FeedGap.objects.filter(outcome=FeedGap.Outcome.OPEN).count()


@admin.register(FeedGap)
class FeedGapAdmin(NumberSearch):
    list_display = (
        "found", "first_sequence", "last_sequence", "reason", "outcome_name", "tries", "next_try", "closed",
    )  # fmt: skip
    list_filter = (("reason", admin.ChoicesFieldListFilter), ("outcome", admin.ChoicesFieldListFilter))
    fields = (
        "first_sequence", "last_sequence", "reason", "outcome_name", "tries", "found", "next_try", "closed",
    )  # fmt: skip
    readonly_fields = ("outcome_name", "found", "next_try", "closed")
    ordering = ("-id",)
    number_columns = ("first_sequence", "last_sequence")
    search_help_text = "The first or last sequence of a gap"

    @admin.display(description="found at")
    def found(self, gap: FeedGap) -> str:
        return columns.moment(gap.found_at)

    @admin.display(description="outcome")
    def outcome_name(self, gap: FeedGap) -> str:
        return gap.get_outcome_display()  # "open" is stored as nothing, which would be shown as nothing

    @admin.display(description="next try at")
    def next_try(self, gap: FeedGap) -> str:
        return columns.ago(gap.next_try_at) if gap.outcome == FeedGap.Outcome.OPEN else columns.NOTHING

    @admin.display(description="closed at")
    def closed(self, gap: FeedGap) -> str:
        return columns.moment(gap.closed_at)


@admin.register(LogHead)
class LogHeadAdmin(ReadOnlyAdmin):
    list_display = ("epoch", "position")
    fields = ("epoch", "position")


@admin.register(KillmailEvent)
class KillmailEventAdmin(NumberSearch):
    list_display = ("position", "kind", "mail", "created")
    list_filter = (("kind", admin.ChoicesFieldListFilter),)
    fields = ("position", "kind", "mail", "created")
    readonly_fields = ("mail", "created")
    ordering = ("-position",)
    search_help_text = "A position in the log"

    @admin.display(description="killmail")
    def mail(self, event: KillmailEvent) -> SafeString:
        return columns.link(Killmail, event.killmail_id, event.killmail_id)

    @admin.display(description="created at")
    def created(self, event: KillmailEvent) -> str:
        return columns.moment(event.created_at)
