"""HTTP and WebSocket: sessions, tokens, transcripts. Never touches audio."""
