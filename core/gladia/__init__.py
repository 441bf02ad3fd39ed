"""Gladia live transcription as pure decisions: no socket, no clock, no randomness.

`live_session.LiveSession` is the door. Words of this package: a *leg* is one Gladia live session
(one POST, one URL, at most three hours); a `LiveSession` is the chain of legs that transcribes one
speaker for as long as the room lives. `position` counts 16 kHz samples on the speaker's own time
line; a *server sample* counts what one leg has received.
"""
