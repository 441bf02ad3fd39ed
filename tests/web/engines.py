"""Engines that answer at once, for tests of the routes in front of them."""

from livekit.api import EgressInfo

from core.ids import Identity, Slug
from core.wire import Insight, Topic
from web.engines import FallbackMode, FallbackState, SpeakerReport
from web.service import Engines


class Fallback:
    def __init__(self) -> None:
        self.running: dict[Slug, FallbackMode] = {}
        self.reports: list[tuple[Slug, Identity, SpeakerReport]] = []
        self.changed: list[EgressInfo] = []

    async def start(self, slug: Slug, mode: FallbackMode) -> FallbackState:
        self.running[slug] = mode
        return FallbackState(state="starting", source="rtmp", egress_ids=("EG_1",))

    async def stop(self, slug: Slug) -> FallbackState:
        self.running.pop(slug, None)
        return FallbackState(state="off")

    def active_speakers(self, slug: Slug, reporter: Identity, report: SpeakerReport) -> None:
        self.reports.append((slug, reporter, report))

    def egress_changed(self, info: EgressInfo) -> None:
        self.changed.append(info)


class Insights:
    async def refresh(self, slug: Slug) -> Insight:
        topic = Topic(id="t1", label=f"About {slug}", started_at_s=0)
        return Insight(title="Title", current_topic=topic.label, topics=(topic,))


class Recaps:
    def __init__(self) -> None:
        self.asked: list[Slug] = []

    async def on_demand(self, slug: Slug) -> None:
        self.asked.append(slug)


def engines() -> Engines:
    return Engines(fallback=Fallback(), insights=Insights(), recaps=Recaps())
