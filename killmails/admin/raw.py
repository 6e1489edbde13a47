"""Bytes from outside, to be looked at: shown as text up to a limit, and given away as a file."""

import json
import re
from dataclasses import dataclass

from django.http import HttpResponse

SHOWN = 64 * 1024  # bytes
# Control characters, and those that are not seen or that turn the direction of the text around them.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


@dataclass(frozen=True, slots=True)
class RawText:
    """The beginning of some bytes as text, and how many bytes there are in all."""

    text: str
    size: int
    cut: bool
    shown: int = SHOWN


def as_text(raw: bytes) -> RawText:
    """As it came; what is no UTF-8, or cannot be seen, as an escape like \\x1b."""
    text = raw[:SHOWN].decode("utf-8", "backslashreplace")
    visible = UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return RawText(visible, len(raw), len(raw) > SHOWN)


def as_json(raw: bytes) -> RawText:
    """JSON that we had accepted, indented; all but ASCII as an escape."""
    pretty = json.dumps(json.loads(raw), indent=2)
    return RawText(pretty[:SHOWN], len(raw), len(pretty) > SHOWN)


def as_file(raw: bytes, name: str) -> HttpResponse:
    """A download that no browser will open as a page, whatever it holds."""
    return HttpResponse(
        raw,
        content_type="application/octet-stream",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        },
    )
