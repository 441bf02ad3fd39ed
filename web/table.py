"""The whole route table, in the order of the API reference."""

from web import health, joining, participants, sessions, transcripts
from web.route import AnyRoute

TABLE: tuple[AnyRoute, ...] = (
    *sessions.ROUTES,
    *joining.ROUTES,
    *participants.ROUTES,
    *transcripts.ROUTES,
    *health.ROUTES,
)
