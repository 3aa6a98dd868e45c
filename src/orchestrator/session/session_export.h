/* The document that session_export writes and session_import reads. */
#ifndef NEXUS_ORCHESTRATOR_SESSION_EXPORT_H
#define NEXUS_ORCHESTRATOR_SESSION_EXPORT_H

#define SESSION_EXPORT_FORMAT S("nexus.session/1")

#endif
