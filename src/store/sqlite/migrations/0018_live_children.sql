-- What a run and those below it wait for is asked again and again while somebody follows it: of children that have ended, of approvals that are
-- decided and of other runs' approvals none is walked over.
CREATE INDEX agent_runs_live_children ON agent_runs (tenant_id, parent_run_id, id) WHERE parent_run_id IS NOT NULL AND completed_at IS NULL;
CREATE INDEX approvals_of_run ON approvals (tenant_id, run_id, status, id);
