-- Until when a run waits for results of its client's own tools.
ALTER TABLE agent_runs ADD COLUMN waits_until INTEGER;
CREATE INDEX agent_runs_waits_until ON agent_runs (tenant_id, waits_until, id) WHERE waits_until IS NOT NULL;
