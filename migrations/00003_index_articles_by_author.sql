-- Migration: 00003_index_articles_by_author.sql
-- Description: Index articles by author while they are being written
-- Date: 2025-02-17
-- Author: Platform team
--
-- A plain CREATE INDEX stops every write to the table until it is done. A concurrent one does not, but cannot be part of
-- a transaction, and waits for transactions older than itself: it needs more patience than the usual timeouts allow, and
-- holds nobody up while it waits. CockroachDB builds every index like that, and reads over the word CONCURRENTLY.
--
-- reconciler: no-transaction
-- reconciler: lock-timeout 10m
-- reconciler: statement-timeout 1h
-- reconciler: ignore cockroachdb-concurrently PostgreSQL needs the word

-- UP MIGRATION

-- The articles of an author, newest first; also finds the articles of a user who is deleted.
-- A build that was interrupted leaves an invalid index, which IF NOT EXISTS takes for the real one. Before another
-- attempt look at it with `\d articles` and, if it says INVALID, DROP INDEX CONCURRENTLY articles_author_idx.
-- Query:
--   SELECT id, created_at, title FROM articles
--   WHERE customer_id = $1 AND author_id = $2
--   ORDER BY created_at DESC, id LIMIT 20
CREATE INDEX CONCURRENTLY IF NOT EXISTS articles_author_idx
    ON articles (customer_id, author_id, created_at DESC, id) INCLUDE (title);

-- DOWN MIGRATION

DROP INDEX CONCURRENTLY IF EXISTS articles_author_idx;
