-- The whole model of one installation. Ids are UUID v7 made by the application, so that an id
-- exists while the database is away; gen_random_uuid() is only the fallback for hand-made rows.

create table users (
  id uuid primary key default gen_random_uuid(),
  subject text unique check (length(subject) between 1 and 255),  -- 'sub' of the identity provider
  email text unique check (email = lower(email)),
  display_name text not null default '' check (length(display_name) <= 200),
  avatar_url text,
  no_avatar_color text check (no_avatar_color ~ '^#[0-9a-fA-F]{6}$'),
  created_at timestamptz not null default now()
);

create table spaces (
  id uuid primary key default gen_random_uuid(),
  slug text not null unique check (length(slug) between 1 and 64),
  name text not null check (length(name) <= 200),
  retention_days int check (retention_days > 0),                  -- null: kept for ever
  created_at timestamptz not null default now()
);
insert into spaces (slug, name) values ('default', 'Default');    -- owns what names no space

create table space_members (
  space_id uuid not null references spaces on delete cascade,
  user_id uuid not null references users on delete cascade,
  role text not null default 'member' check (role in ('owner', 'admin', 'member')),
  created_at timestamptz not null default now(),
  primary key (space_id, user_id)
);
create index space_members_user on space_members (user_id);

-- A stored meeting; spans several LiveKit rooms of the same name, one after the other.
create table sessions (
  id uuid primary key default gen_random_uuid(),
  slug text not null unique                                       -- = the LiveKit room's name
    check (length(slug) between 1 and 256),
  title text check (length(title) <= 300),
  space_id uuid references spaces on delete restrict,
  created_by uuid references users on delete set null,
  origin text not null default 'rest' check (origin in ('rest', 'room')),
    -- 'room': nobody asked us for it, a bot found the room; it opens again when the room does
  status text not null default 'active' check (status in ('active', 'ended')),
  room_sid text,                                                  -- of the latest room
  room_started_at timestamptz,                                    -- first bot in the latest room
  started_at timestamptz,                                         -- first bot in the first room
  ai_title text,
  ai_current_topic text,
  ai_topics jsonb not null default '[]' check (jsonb_typeof(ai_topics) = 'array'),
  ai_rev bigint not null default 0,
  ai_updated_at timestamptz,
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  check ((status = 'ended') = (ended_at is not null))
) with (fillfactor = 80);
create index sessions_space on sessions (space_id, created_at desc);
create index sessions_ended on sessions (ended_at) where ended_at is not null;  -- retention sweep
create index sessions_created_by on sessions (created_by) where created_by is not null;

create table participants (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references sessions on delete cascade,
  user_id uuid references users on delete set null,
  identity text not null check (length(identity) between 1 and 256),
  name text check (length(name) <= 300),
  role text not null default 'guest' check (role in ('host', 'guest')),
  kind text not null default 'standard',                          -- LiveKit's participant kind
  joined_at timestamptz not null default now(),                   -- for the first time
  last_joined_at timestamptz,             -- start of the latest presence; null: only heard so far
  left_at timestamptz,                                            -- end of the latest presence
  unique (session_id, identity)
);
create index participants_user on participants (user_id) where user_id is not null;

create sequence segment_seq;

-- Stemmed by the segment's own language. The configurations are those of PostgreSQL 15.
create function segment_tsv(language text, body text) returns tsvector
language sql immutable parallel safe as $$
  select pg_catalog.to_tsvector(
    case split_part(lower(coalesce(language, '')), '-', 1)
      when 'ar' then 'pg_catalog.arabic'::pg_catalog.regconfig
      when 'ca' then 'pg_catalog.catalan'::pg_catalog.regconfig
      when 'da' then 'pg_catalog.danish'::pg_catalog.regconfig
      when 'de' then 'pg_catalog.german'::pg_catalog.regconfig
      when 'el' then 'pg_catalog.greek'::pg_catalog.regconfig
      when 'en' then 'pg_catalog.english'::pg_catalog.regconfig
      when 'es' then 'pg_catalog.spanish'::pg_catalog.regconfig
      when 'fi' then 'pg_catalog.finnish'::pg_catalog.regconfig
      when 'fr' then 'pg_catalog.french'::pg_catalog.regconfig
      when 'hi' then 'pg_catalog.hindi'::pg_catalog.regconfig
      when 'hu' then 'pg_catalog.hungarian'::pg_catalog.regconfig
      when 'id' then 'pg_catalog.indonesian'::pg_catalog.regconfig
      when 'it' then 'pg_catalog.italian'::pg_catalog.regconfig
      when 'lt' then 'pg_catalog.lithuanian'::pg_catalog.regconfig
      when 'nl' then 'pg_catalog.dutch'::pg_catalog.regconfig
      when 'no' then 'pg_catalog.norwegian'::pg_catalog.regconfig
      when 'pt' then 'pg_catalog.portuguese'::pg_catalog.regconfig
      when 'ro' then 'pg_catalog.romanian'::pg_catalog.regconfig
      when 'ru' then 'pg_catalog.russian'::pg_catalog.regconfig
      when 'sr' then 'pg_catalog.serbian'::pg_catalog.regconfig
      when 'sv' then 'pg_catalog.swedish'::pg_catalog.regconfig
      when 'tr' then 'pg_catalog.turkish'::pg_catalog.regconfig
      else 'pg_catalog.simple'::pg_catalog.regconfig
    end,
    body)
$$;

-- One utterance in its newest version. Written only while the session's row is locked, so that
-- seq order is commit order within a session and a reader of `seq > cursor` skips nothing.
create table transcript_segments (
  session_id uuid not null references sessions on delete cascade,
  utterance_id text not null check (length(utterance_id) between 1 and 512),
  seq bigint not null default nextval('segment_seq'),             -- new with every version written
  rev int not null check (rev >= 0),                              -- the utterance's own version
  is_final boolean not null,
  kind text not null default 'speech' check (kind in ('speech', 'gap')),
  source text not null default 'agent' check (source in ('agent', 'rtmp', 'track')),
  participant_id uuid references participants on delete set null,
  identity text not null default '' check (length(identity) <= 256),  -- '': a mix could not tell
  name text not null default '',                                  -- at the time of speaking
  track_sid text,
  text text not null check (length(text) <= 100000),
  language text,
  confidence real,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  words jsonb check (jsonb_typeof(words) = 'array'),
  translations jsonb check (jsonb_typeof(translations) = 'object'),
  reason text,                                                    -- of a gap
  attribution text,
  attribution_confidence real,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  tsv tsvector generated always as (segment_tsv(language, text)) stored,
  primary key (session_id, utterance_id),
  check (ended_at >= started_at)
) with (fillfactor = 90);
create unique index transcript_segments_seq on transcript_segments (session_id, seq);
create index transcript_segments_tsv on transcript_segments using gin (tsv);
create index transcript_segments_participant on transcript_segments (participant_id);

-- Every insight that a model gave, for the history and the bill; the newest is in sessions.ai_*.
create table session_insights (
  session_id uuid not null references sessions on delete cascade,
  rev bigint not null check (rev > 0),
  title text not null,
  current_topic text not null,
  topics jsonb not null default '[]' check (jsonb_typeof(topics) = 'array'),
  topic_changed boolean not null default false,
  model text,
  prompt_tokens int not null default 0,
  completion_tokens int not null default 0,
  created_at timestamptz not null,
  primary key (session_id, rev)
);

-- Who transcribes a room, whatever its kind. The epoch grows with each change of holder.
create table bot_leases (
  room text primary key,
  holder text not null,
  kind text not null default 'agent' check (kind in ('agent', 'rtmp', 'track')),
  epoch bigint not null default 1,
  started_at timestamptz not null default now(),                  -- of the present holder
  expires_at timestamptz not null
) with (fillfactor = 50);
create index bot_leases_holder on bot_leases (holder);

-- The minutes of an ended session. A row is claimed for a while by who writes it.
create table session_recaps (
  session_id uuid primary key references sessions on delete cascade,
  state text not null default 'pending' check (state in ('pending', 'done', 'failed')),
  claimed_until timestamptz,
  attempts int not null default 0,
  recap jsonb check (jsonb_typeof(recap) = 'object'),
  last_seq bigint,                                                -- newest line that it covers
  model text,
  prompt_tokens int not null default 0,
  completion_tokens int not null default 0,
  updated_at timestamptz not null default now(),
  check (state <> 'done' or recap is not null)
);
