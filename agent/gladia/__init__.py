"""Gladia live transcription: a LiveKit STT plugin over the pure core."""
