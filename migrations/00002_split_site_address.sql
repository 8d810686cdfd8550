-- Migration: 00002_split_site_address.sql
-- Description: Split the address of a site into host and path
-- Date: 2025-02-03
-- Author: Platform team
--
-- Requests come with a host, and sites are found by one text of host and path. This is the first half of an
-- expand/contract change: the new columns come, the old one stays. Once no running release uses `address` any more, a
-- later migration makes `host` and `path` ordinary columns and drops it.
--
-- The new columns are computed from the old one, not copied once. So releases from before and after this change can run
-- side by side: both write `address`, and the parts are right whoever wrote it.
--
-- reconciler: ignore cockroachdb-if-exists what is there already and not ours has to stop the migration

-- UP MIGRATION

-- One ALTER TABLE for both: one pass over the table, which fills in the rows that are there.
-- example.org/magazine becomes `example.org` and `/magazine`; example.org becomes `example.org` and ``.
ALTER TABLE sites
    ADD COLUMN host TEXT NOT NULL GENERATED ALWAYS AS (split_part(address, '/', 1)) STORED,
    ADD COLUMN path TEXT NOT NULL
        GENERATED ALWAYS AS (substr(address, length(split_part(address, '/', 1)) + 1)) STORED;

-- Which site answers a request: all sites at its host, the longest path first; answered by the index alone.
-- Query:
--   SELECT path, id, customer_id FROM sites
--   WHERE host = $1
--   ORDER BY path DESC
CREATE INDEX sites_host_idx ON sites (host, path DESC, id) INCLUDE (customer_id);

-- DOWN MIGRATION

-- Nothing is lost: all that goes is computed from `address`, which is still there.
DROP INDEX sites_host_idx;
ALTER TABLE sites DROP COLUMN path, DROP COLUMN host;
