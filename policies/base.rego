# The base module: what every installation starts from.  Replace it to change who may start runs and call models.
# It only adds to `allow`; what no rule allows is denied.
package nexus.agent.policy

import rego.v1

working_roles := {"user", "operator", "admin"}

# Runs and model calls.
allow if {
	input.action in {"run.start", "model.call"}
	input.user.role in working_roles
}

# Categories that are treated like `http`.
allow if {
	input.action == "tool.call"
	input.user.role in {"user", "operator"}
	input.tool.category in {"code", "time", "memory", "agent"}
	input.session.budget.tokens > 1000
}

# Tools that the caller brings and runs itself.
allow if {
	input.action == "tool.call"
	input.user.role in working_roles
	input.tool.category == "client"
}

# An operator may run what a user may.
allow if {
	input.action == "tool.call"
	input.user.role == "operator"
	input.tool.category in {"http", "text_processing", "data_analysis"}
	input.session.budget.tokens > 1000
}

# Files in the caller's own workspace need no approval: the host call reaches no others, whatever the path says.
allow if {
	input.action == "tool.call"
	input.user.role in {"user", "operator"}
	input.tool.name == "file_system"
	input.tool.category == "system"
	input.session.budget.tokens > 1000
}

# Reading the session's own memory.
allow if {
	input.action == "memory.read"
	input.user.role in working_roles
}
