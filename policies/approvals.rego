# What an approval needs beside one other person, as data.json beside this file says it:
#   {"approval_requirements": {"tools": {"pay": {"quorum": 2}}, "categories": {"system": {"expires": "1h"}}}}
# All that fit a call hold together, and so does what the tool's configuration demands.  docs/approvals.md has the members of a rule.
package nexus.agent.policy

import rego.v1

approval_requirements contains rule if {
	rule := data.approval_requirements.tools[input.tool.name]
}

approval_requirements contains rule if {
	rule := data.approval_requirements.categories[input.tool.category]
}
