-- What is due is asked for over all tenants: its index begins with the time, so that what is not due is not walked over.
DROP INDEX sessions_expires_at;
CREATE INDEX sessions_expires_at ON sessions (expires_at, tenant_id, id) WHERE expires_at IS NOT NULL;
DROP INDEX agent_runs_waits_until;
CREATE INDEX agent_runs_waits_until ON agent_runs (waits_until, tenant_id, id) WHERE waits_until IS NOT NULL;
DROP INDEX agent_runs_wakes_at;
CREATE INDEX agent_runs_wakes_at ON agent_runs (wakes_at, tenant_id, id) WHERE wakes_at IS NOT NULL;
DROP INDEX approvals_remind_at;
CREATE INDEX approvals_remind_at ON approvals (remind_at, tenant_id, id) WHERE remind_at IS NOT NULL;
DROP INDEX schedules_next_at;
CREATE INDEX schedules_next_at ON schedules (next_at, tenant_id, name) WHERE next_at IS NOT NULL;
