-- The configuration that segment_tsv stems a language by, for queries and headlines.
create function segment_config(language text) returns regconfig
language sql immutable parallel safe as $$
  select case split_part(lower(coalesce(language, '')), '-', 1)
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
  end
$$;
