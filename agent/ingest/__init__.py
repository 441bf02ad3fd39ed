"""The fallback's ears: RTMP and Track Egress."""
