"""Whose words these are, where all voices come mixed in one stream.

Browsers report when their own user speaks; the reports, aligned to the audio, are held against
each utterance. A provider's speaker labels help where there are any (Gladia's live API has none):
a label is trusted for a person whom it was seen together with, alone, for long enough. Labels
never name somebody who does not report.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.alignment import Alignment
from core.speaking import Speaking

CLEAR_SHARE = 0.6
"""Share of an utterance that its speaker must cover, and twice what anybody else does."""
LIKELY_SHARE = 0.25
LABEL_SHARE = 0.85
LABEL_SPEECH_S = 6.0
QUIET_SHARE = 0.1
HALF_LIFE_S = 60.0
"""Speech of a label after which what was seen before counts half."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who spoke, how we know and how sure we are."""

    identity: str
    """`""` when nobody can be named."""
    method: Literal["direct", "label", "none"]
    confidence: float
    """0..1."""


NOBODY = Attribution("", "none", 0.0)


@dataclass(slots=True)
class _Label:
    """What was seen of one label: seconds with each person, and all its speech."""

    seconds: dict[str, float] = field(default_factory=dict)
    speech_s: float = 0.0

    def share(self, identity: str) -> float:
        total = sum(self.seconds.values())
        return self.seconds.get(identity, 0.0) / total if total else 0.0


class Attributor:
    """Names the utterances of one mixed stream. Times are monotonic seconds of capture."""

    def __init__(self) -> None:
        self.speaking = Speaking()
        self.alignment = Alignment()
        self._labels: dict[str, _Label] = {}

    def name(
        self,
        start: float,
        end: float,
        now: float,
        *,
        label: str | None = None,
        all_report: bool = False,
        learn: bool = True,
    ) -> Attribution:
        """Whose utterance start..end is.

        Args:
            start: capture time of the first sound.
            end: capture time of the last one.
            now: monotonic seconds.
            label: the provider's speaker label, where it has one.
            all_report: whether every publisher's browser reports; only then may a label name
                somebody whose report is missing.
            learn: False for interims, which would count their words many times.
        """
        length = max(end - start, 1e-3)
        shift = self.alignment.correction_s
        seconds = self.speaking.overlaps(start + shift, end + shift, now)
        shares = {who: min(1.0, each / length) for who, each in seconds.items()}
        found = _direct(shares)
        if found is None:
            found = self._scored(shares, label, all_report=all_report)
        if learn and label is not None:
            sole = self.speaking.sole(start + shift, end + shift, now)
            self._learn(label, length, {found.identity: length} if _clear(shares) else sole)
        return found

    def _scored(
        self, shares: Mapping[str, float], label: str | None, *, all_report: bool
    ) -> Attribution:
        seen = self._labels.get(label or "", _Label())
        scores = {who: share + seen.share(who) for who, share in shares.items()}
        best = max(scores, key=scores.__getitem__, default="")
        if best and shares[best] >= LIKELY_SHARE:
            method: Literal["direct", "label"] = "label" if seen.share(best) else "direct"
            return Attribution(best, method, scores[best] / (2.0 if seen.seconds else 1.0))
        known = max(seen.seconds, key=seen.seconds.__getitem__, default="")
        trusted = (
            all_report
            and seen.speech_s > LABEL_SPEECH_S
            and seen.share(known) >= LABEL_SHARE
            and max(shares.values(), default=0.0) < QUIET_SHARE
        )
        return Attribution(known, "label", seen.share(known)) if trusted else NOBODY

    def _learn(self, label: str, length: float, seconds: Mapping[str, float]) -> None:
        seen = self._labels.setdefault(label, _Label())
        fade = 0.5 ** (length / HALF_LIFE_S)
        seen.seconds = {who: each * fade for who, each in seen.seconds.items()}
        seen.speech_s = seen.speech_s * fade + length
        for who, each in seconds.items():
            seen.seconds[who] = seen.seconds.get(who, 0.0) + each


def _clear(shares: Mapping[str, float]) -> bool:
    ordered = sorted(shares.values(), reverse=True)
    second = ordered[1] if len(ordered) > 1 else 0.0
    return bool(ordered) and ordered[0] >= CLEAR_SHARE and second < ordered[0] / 2


def _direct(shares: Mapping[str, float]) -> Attribution | None:
    if not _clear(shares):
        return None
    best = max(shares, key=shares.__getitem__)
    others = max((share for who, share in shares.items() if who != best), default=0.0)
    return Attribution(best, "direct", shares[best] * (1 - others / 2))
