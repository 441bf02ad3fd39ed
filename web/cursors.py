"""Where a page ended, as text that clients hand back and need not understand."""

import base64
import binascii
from datetime import datetime
from uuid import UUID

from core.errors import NotFound


def cursor_of(at: datetime, row_id: UUID | str) -> str:
    """The place after the row of that time and id."""
    text = f"{at.isoformat()}|{row_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[datetime, UUID]:
    """The row that the page before ended with.

    Raises:
        NotFound: the cursor is not one of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, row_id = base64.b64decode(padded, "-_", validate=True).decode().partition("|")
        place = datetime.fromisoformat(at), UUID(row_id)
    except (ValueError, binascii.Error) as exc:
        raise NotFound("no such page") from exc
    if place[0].tzinfo is None:
        raise NotFound("no such page")
    return place
