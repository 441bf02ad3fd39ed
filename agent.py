"""`python agent.py dev | start | connect ROOM`: see agent/cli.py."""

import os

os.environ.setdefault("LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE", "0")  # noqa: TID251 - read on import
os.environ.setdefault("LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS", "0")  # noqa: TID251 - read on import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251 - read on import; onnxruntime

from agent.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
