-- Rows without a value are never looked for by it: leaving them out makes each of their inserts cheaper.
DROP INDEX messages_run_id;
CREATE INDEX messages_run_id ON messages (tenant_id, run_id, id) WHERE run_id IS NOT NULL;
DROP INDEX ledger_session_id;
CREATE INDEX ledger_session_id ON ledger (tenant_id, session_id, id) WHERE session_id IS NOT NULL;
DROP INDEX ledger_run_id;
CREATE INDEX ledger_run_id ON ledger (tenant_id, run_id, id) WHERE run_id IS NOT NULL;
