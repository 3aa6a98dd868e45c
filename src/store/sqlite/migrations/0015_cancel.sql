-- Who asked a run to stop: what was promised to them is kept by whoever goes on with the run.
ALTER TABLE agent_runs ADD COLUMN cancel_by TEXT;
