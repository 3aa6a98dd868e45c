-- A run is gone in one commit, however long its rows take; what is begun from a session's runs is counted, so that neither misses the other.
ALTER TABLE sessions ADD COLUMN forks INTEGER;
ALTER TABLE agent_runs ADD COLUMN removed_at INTEGER;
CREATE INDEX agent_runs_removed_at ON agent_runs (tenant_id, removed_at, id) WHERE removed_at IS NOT NULL;
