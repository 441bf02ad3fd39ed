"""Full-text search over what was said, in one session or in all that a caller may read.

Words are stemmed by each segment's own language; a segment in a language without a stemmer is
found by its literal words. Languages that are written without spaces (Chinese, Japanese, Thai ...)
have no words for PostgreSQL: there, and only within one session or few, the text is found as it
is typed.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.ids import Slug
from db.patterns import containing
from db.pool import Connection
from db.segments import COLUMNS, FROM, StoredSegment, stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A segment that was found, with its session and the found words marked."""

    slug: Slug
    title: str | None
    stored: StoredSegment
    headline: str
    """A part of the text; found words stand between U+E000 and U+E001."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where to look."""

    sees_all: bool
    user_id: UUID | None
    space_slugs: tuple[str, ...] = ()
    space: str | None = None
    """Only this space, by id or slug."""
    session: UUID | None = None
    """Only this session; then nothing else of the scope counts."""


_UNSPACED = ("zh", "ja", "th", "lo", "km", "my", "yue")
_HITS = f"""
with readable as (
  select s.id, s.slug, s.title from sessions s
  join spaces sp on sp.id = coalesce(s.space_id, (select id from spaces where slug = 'default'))
  left join space_members m on m.space_id = sp.id and m.user_id = $2
  where s.deleted_at is null and case when $6::uuid is not null then s.id = $6 else
    ($3 or m.role is not null or sp.slug = any($4::text[]) or s.created_by = $2)
    and ($5::text is null or sp.slug = $5 or sp.id::text = $5) end
),
queries as materialized (
  select l.language, segment_config(l.language) as config,
    websearch_to_tsquery(segment_config(l.language), $1) as query
  from (select distinct split_part(lower(coalesce(t.language, '')), '-', 1) as language
    from transcript_segments t where t.session_id in (select id from readable)) l
)
select r.slug, r.title, t.*,
  ts_headline(q.config, t.text, q.query,
    'StartSel=\ue000, StopSel=\ue001, MaxFragments=1, MaxWords=30, MinWords=10') as headline
from queries q
join lateral (
  select {COLUMNS}, t.session_id {FROM}
  where t.session_id in (select id from readable) and t.is_final
    and split_part(lower(coalesce(t.language, '')), '-', 1) = q.language
    and (t.tsv @@ q.query or (q.language = any($9::text[]) and t.text ilike $10))
    and ($8::timestamptz is null or t.started_at < $8)
  order by t.started_at desc limit $7
) t on true
join readable r on r.id = t.session_id
order by t.started_at desc, t.utterance_id limit $7
"""  # noqa: S608 - constants


async def search(
    conn: Connection,
    q: str,
    scope: Scope,
    *,
    limit: int,
    before: datetime | None = None,
) -> list[Hit]:
    """Segments that match, newest speech first; `q` knows "phrases", OR and -without."""
    rows = await conn.fetch(
        _HITS,
        q,
        scope.user_id,
        scope.sees_all,
        list(scope.space_slugs),
        scope.space,
        scope.session,
        limit,
        before,
        list(_UNSPACED),
        containing(q),
    )
    return [
        Hit(
            slug=Slug(row["slug"]),
            title=row["title"],
            stored=stored(row, Slug(row["slug"])),
            headline=row["headline"],
        )
        for row in rows
    ]
