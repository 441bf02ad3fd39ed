"""`python agent.py dev | start | connect ROOM`: see agent/cli.py."""

import os

os.environ.setdefault("LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE", "0")  # noqa: TID251 - read on import
os.environ.setdefault("LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS", "0")  # noqa: TID251 - read on import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251 - read on import; onnxruntime
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # noqa: TID251 - read when job processes start

if __name__ == "__main__":
    # Not above: each job process imports this file anew, and would keep a worker's imports.
    from agent.cli import main

    raise SystemExit(main())
