-- What the web service adds: languages by session, deletion that a late record cannot undo, the
-- end of a session, and webhooks in both directions.

alter table sessions
  add column languages text[] not null default '{}',              -- empty: the installation's
  add column deleted_at timestamptz,      -- hidden at once; the row goes when no bot can write it
  add column empty_since timestamptz,     -- the room is gone; the session ends after a grace
  add column room_event_at timestamptz,   -- of the newest webhook about the room
  add column announced_at timestamptz,    -- session.ended is in the outbox
  add column transcript_ready_at timestamptz;                     -- transcript.ready is
create index sessions_empty on sessions (empty_since) where empty_since is not null;
create index sessions_unannounced on sessions (ended_at)
  where ended_at is not null and transcript_ready_at is null;
create index sessions_deleted on sessions (deleted_at) where deleted_at is not null;

-- LiveKit repeats webhooks; an id seen twice is one event.
create table received_webhooks (
  id text primary key check (length(id) between 1 and 128),
  received_at timestamptz not null default now()
);
create index received_webhooks_at on received_webhooks (received_at);

-- The outbox of our own webhooks. A row stays until its address answered 2xx, or gave up.
create table webhook_deliveries (
  id uuid primary key default gen_random_uuid(),
  event_id uuid not null,                                         -- the same in every attempt
  url text not null,
  body text not null,
  attempts int not null default 0,
  next_at timestamptz not null default now(),                     -- moved on while one is under way
  delivered_at timestamptz,
  gave_up_at timestamptz,
  last_error text,
  created_at timestamptz not null default now(),
  unique (event_id, url)
);
create index webhook_deliveries_due on webhook_deliveries (next_at)
  where delivered_at is null and gave_up_at is null;
