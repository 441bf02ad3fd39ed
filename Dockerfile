# One image, two programs:
#   worker (default)   docker run IMAGE
#   web                docker run IMAGE python -m web
#
# Not verified: this file has been written and linted by eye, but no container engine was at hand to build it.

FROM python:3.11-slim-bookworm AS packages
COPY requirements.lock .
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends ffmpeg tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/roomscribe roomscribe
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/roomscribe
COPY agent.py ./
COPY core core
COPY db db
COPY agent agent
COPY web web
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ROOMSCRIBE_DATA_DIR=/var/lib/roomscribe
USER roomscribe
# The journal lives here: it must outlive the container.
VOLUME /var/lib/roomscribe
EXPOSE 3000 1937
ENTRYPOINT ["tini", "--"]
# SIGTERM hands the rooms over; give it time: docker stop --time 30.
CMD ["python", "agent.py", "start"]
