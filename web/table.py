"""The whole route table, in the order of the API reference."""

from web import (
    config,
    exports,
    health,
    hooks,
    insights,
    joining,
    metrics,
    participants,
    recaps,
    searching,
    sessions,
    spaces,
    transcription,
    transcripts,
)
from web.route import AnyRoute

TABLE: tuple[AnyRoute, ...] = (
    *sessions.ROUTES,
    *joining.ROUTES,
    *participants.ROUTES,
    *transcripts.ROUTES,
    *exports.ROUTES,
    *searching.ROUTES,
    *insights.ROUTES,
    *recaps.ROUTES,
    *transcription.ROUTES,
    *hooks.ROUTES,
    *spaces.ROUTES,
    *config.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)
