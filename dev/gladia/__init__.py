"""A stand-in for Gladia's live API (v2): real HTTP and WebSocket, strict, scriptable."""

from dev.gladia.ear import Ear, WatermarkEar
from dev.gladia.faults import FaultScript, When
from dev.gladia.live_session import LiveSession
from dev.gladia.policy import Policy
from dev.gladia.standin import GladiaStandIn

__all__ = [
    "Ear",
    "FaultScript",
    "GladiaStandIn",
    "LiveSession",
    "Policy",
    "WatermarkEar",
    "When",
]
