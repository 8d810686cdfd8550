-- Migration: 00004_add_subscription_plans.sql
-- Description: Add subscription plans with monthly quotas
-- Date: 2025-03-10
-- Author: Platform team
--
-- Customers subscribe to a plan, and a plan limits what they may use in a month. Nobody who is a customer already is cut
-- off: they get the plan without limits, new ones begin with the small plan.
--
-- reconciler: ignore cockroachdb-if-exists what is there already and not ours has to stop the migration
-- reconciler: ignore cockroachdb-mixed a column of customers refers to the rows of plans

-- UP MIGRATION

-- A handful of rows that people speak of by name: the name is the key.
CREATE TABLE plans (
    code TEXT PRIMARY KEY,
    name TEXT NOT NULL
);

-- A resource without a row here has no limit. The names are those of resource_usage.
CREATE TABLE plan_quotas (
    plan TEXT NOT NULL REFERENCES plans (code),
    resource TEXT NOT NULL,
    monthly_quantity BIGINT NOT NULL,
    PRIMARY KEY (plan, resource),
    CONSTRAINT plan_quotas_monthly_quantity_check CHECK (monthly_quantity > 0)
);

INSERT INTO plans (code, name) VALUES
    ('starter', 'Starter'),
    ('unlimited', 'Unlimited');

INSERT INTO plan_quotas (plan, resource, monthly_quantity) VALUES
    ('starter', 'articles', 100),
    ('starter', 'page_views', 50000),
    ('starter', 'storage_bytes', 1000000000);

-- Two defaults, one after the other: the first is for the rows that are there, the second for those to come. A release
-- that knows nothing of plans can go on inserting customers.
ALTER TABLE customers ADD COLUMN plan TEXT NOT NULL DEFAULT 'unlimited';
ALTER TABLE customers ALTER COLUMN plan SET DEFAULT 'starter';
ALTER TABLE customers ADD CONSTRAINT customers_plan_fkey FOREIGN KEY (plan) REFERENCES plans (code);

-- DOWN MIGRATION

-- Customers and what they used stay. The plans go, and with them which customer had which: going up again gives the
-- plan without limits to everybody.
ALTER TABLE customers DROP CONSTRAINT customers_plan_fkey;
ALTER TABLE customers DROP COLUMN plan;
DROP TABLE plan_quotas;
DROP TABLE plans;
