-- Webhooks: what came in and is known, secrets that were changed, what is due at one endpoint.
ALTER TABLE run_signals ADD COLUMN label TEXT;
ALTER TABLE webhooks ADD COLUMN run_pointer TEXT;
ALTER TABLE webhooks ADD COLUMN previous_secret TEXT;
ALTER TABLE webhooks ADD COLUMN previous_until INTEGER;
ALTER TABLE webhook_endpoints ADD COLUMN include TEXT;
ALTER TABLE webhook_endpoints ADD COLUMN paused_why TEXT;
ALTER TABLE webhook_endpoints ADD COLUMN previous_secret TEXT;
ALTER TABLE webhook_endpoints ADD COLUMN previous_until INTEGER;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (tenant_id, endpoint, id, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at, tenant_id, id);
DROP INDEX webhook_deliveries_next_at;

CREATE TABLE webhook_receipts (
    tenant_id TEXT NOT NULL,
    webhook TEXT NOT NULL,
    delivery TEXT NOT NULL,
    run_id TEXT NOT NULL,
    signal_id TEXT,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, webhook, delivery)
) WITHOUT ROWID;
CREATE INDEX webhook_receipts_age ON webhook_receipts (received_at, tenant_id, webhook, delivery);
