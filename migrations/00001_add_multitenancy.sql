-- Migration: 00001_add_multitenancy.sql
-- Description: Add multitenancy support
-- Date: 2025-01-15
-- Author: Platform team
--
-- One publisher's articles and users become those of many customers, each with sites, users who sign in through an
-- identity provider, and metered resource usage.
--
-- * Every row is under a customer, and foreign keys carry customer_id, so that the database itself refuses to mix two.
-- * Rows that are already there are kept: they become those of the customer `default`.
-- * It runs the same on an empty database and on one that has had users and articles for years. Writers wait while the
--   new indexes are built and the foreign keys checked: with very many articles, choose a quiet hour.
-- * PostgreSQL 13 or later, and CockroachDB. PostgreSQL runs this file as one transaction; CockroachDB runs each
--   statement by itself, so no statement may need a later one to make sense of the schema.
--
-- reconciler: ignore cockroachdb-if-exists what is there already and not ours has to stop the migration
-- reconciler: ignore cockroachdb-mixed the rows that come first are what the new columns refer to

-- UP MIGRATION

-- The tables from before tenancy, for databases that are new. Where they exist, with more columns or fewer constraints
-- than here, they stay as they are.
CREATE TABLE IF NOT EXISTS users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS articles (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    author_id UUID NOT NULL REFERENCES users (id),
    title TEXT NOT NULL,
    body TEXT NOT NULL DEFAULT '',
    published_at TIMESTAMPTZ, -- NULL: a draft
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Random UUIDs spread rows over all of a cluster; numbers that only grow would send every insert to one node.
CREATE TABLE customers (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE sites (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id UUID NOT NULL REFERENCES customers (id),
    address TEXT NOT NULL UNIQUE, -- host, and optionally port and path: example.org/magazine
    name TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT sites_address_check CHECK (address ~ '^[a-z0-9.-]+(:[0-9]+)?(/.*)?$'),
    UNIQUE (customer_id, id) -- for the foreign keys that carry customer_id
);

-- Whoever has rows from before gets a customer and a site to put them under; a new database stays empty.
-- The names of both are placeholders (`.invalid` never resolves): change them when you like.
INSERT INTO customers (id, slug, name)
SELECT CAST('00000000-0000-4000-8000-000000000001' AS UUID), 'default', 'Default customer'
WHERE EXISTS (SELECT 1 FROM users) OR EXISTS (SELECT 1 FROM articles);

INSERT INTO sites (id, customer_id, address, name)
SELECT CAST('00000000-0000-4000-8000-000000000002' AS UUID), id, 'default.invalid', 'Default site'
FROM customers
WHERE slug = 'default';

-- A constant default fills in the existing rows without rewriting the table, however large. It must not outlive this
-- migration: a row that forgets its customer has to be refused, not filed under somebody else's name.
ALTER TABLE users ADD COLUMN customer_id UUID NOT NULL DEFAULT '00000000-0000-4000-8000-000000000001';
ALTER TABLE users ALTER COLUMN customer_id DROP DEFAULT;
ALTER TABLE users ADD CONSTRAINT users_customer_fkey FOREIGN KEY (customer_id) REFERENCES customers (id);

-- What foreign keys with customer_id refer to. An index and not a constraint: foreign keys are content with either, and
-- most versions of CockroachDB can take back only an index. That `email` is unique over all customers stays as it is:
-- sign-in looks it up before it knows whose user it is.
CREATE UNIQUE INDEX users_customer_id_key ON users (customer_id, id);

ALTER TABLE articles
    ADD COLUMN customer_id UUID NOT NULL DEFAULT '00000000-0000-4000-8000-000000000001',
    ADD COLUMN site_id UUID NOT NULL DEFAULT '00000000-0000-4000-8000-000000000002';
ALTER TABLE articles ALTER COLUMN customer_id DROP DEFAULT, ALTER COLUMN site_id DROP DEFAULT;
ALTER TABLE articles
    ADD CONSTRAINT articles_customer_site_fkey
        FOREIGN KEY (customer_id, site_id) REFERENCES sites (customer_id, id),
    ADD CONSTRAINT articles_customer_author_fkey
        FOREIGN KEY (customer_id, author_id) REFERENCES users (customer_id, id);

-- The editors' list of a site, drafts included. Not partial, so it also finds the articles of a site that is deleted.
-- Query:
--   SELECT id, title, published_at FROM articles
--   WHERE customer_id = $1 AND site_id = $2
--   ORDER BY created_at DESC LIMIT 50
CREATE INDEX articles_site_idx ON articles (customer_id, site_id, created_at DESC);

-- The front page of a site. Partial: drafts take no room in it. Covering: the bodies are never read. `id` is a part of
-- the key because CockroachDB has the primary key in every index and refuses to INCLUDE it once more.
-- Query:
--   SELECT id, title, published_at FROM articles
--   WHERE customer_id = $1 AND site_id = $2 AND published_at <= now()
--   ORDER BY published_at DESC, id LIMIT 20
CREATE INDEX articles_published_idx ON articles (customer_id, site_id, published_at DESC, id)
    INCLUDE (title)
    WHERE published_at IS NOT NULL;

-- Who a user is at an identity provider. A user may have several identities, an identity has one user.
CREATE TABLE user_identities (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id UUID NOT NULL,
    user_id UUID NOT NULL,
    provider TEXT NOT NULL, -- the issuer of an OpenID Connect token, or the entity ID of a SAML provider
    subject TEXT NOT NULL, -- what the provider calls the user: opaque, and unique only within the provider
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT user_identities_customer_user_fkey
        FOREIGN KEY (customer_id, user_id) REFERENCES users (customer_id, id) ON DELETE CASCADE
);

-- Sign-in: from what the token says to the user, answered by the index alone.
-- Query:
--   SELECT customer_id, user_id FROM user_identities
--   WHERE provider = $1 AND subject = $2
CREATE UNIQUE INDEX user_identities_subject_key ON user_identities (provider, subject)
    INCLUDE (customer_id, user_id);

-- The account page, and the identities that go with a user who is deleted: foreign keys bring no index of their own.
-- Query:
--   SELECT provider, created_at FROM user_identities
--   WHERE customer_id = $1 AND user_id = $2
CREATE INDEX user_identities_user_idx ON user_identities (customer_id, user_id);

-- What a customer used of a resource in one calendar month. What is metered is the key, so that counting is one
-- statement: INSERT ... ON CONFLICT (customer_id, resource, period_start) DO UPDATE SET quantity = ...
CREATE TABLE resource_usage (
    customer_id UUID NOT NULL REFERENCES customers (id),
    resource TEXT NOT NULL, -- articles, page_views, storage_bytes, ...
    period_start DATE NOT NULL,
    quantity BIGINT NOT NULL DEFAULT 0,
    billed_at TIMESTAMPTZ, -- NULL: not on an invoice yet
    PRIMARY KEY (customer_id, resource, period_start),
    CONSTRAINT resource_usage_period_check CHECK (extract(day FROM period_start) = 1),
    CONSTRAINT resource_usage_quantity_check CHECK (quantity >= 0)
);

-- The billing run. Partial: it holds the open months and not the history. Not covering, on purpose: `quantity` changes
-- all the time, and each change would have to be written to the index too.
-- Query:
--   SELECT customer_id, resource, quantity FROM resource_usage
--   WHERE billed_at IS NULL AND period_start < $1
--   ORDER BY period_start
CREATE INDEX resource_usage_unbilled_idx ON resource_usage (period_start) WHERE billed_at IS NULL;

-- DOWN MIGRATION

-- Back to one publisher. Every user and article stays, whichever customer's it was; what only tenancy knows goes:
-- customers, sites, identities, usage, and who belonged to whom. The two old tables stay even if it was this migration
-- that made them: by now they may hold the only copy of somebody's work.
DROP TABLE resource_usage;
DROP TABLE user_identities;

ALTER TABLE articles
    DROP CONSTRAINT articles_customer_author_fkey,
    DROP CONSTRAINT articles_customer_site_fkey;
DROP INDEX articles_published_idx;
DROP INDEX articles_site_idx;
ALTER TABLE articles DROP COLUMN site_id, DROP COLUMN customer_id;

ALTER TABLE users DROP CONSTRAINT users_customer_fkey;
DROP INDEX users_customer_id_key;
ALTER TABLE users DROP COLUMN customer_id;

DROP TABLE sites;
DROP TABLE customers;
