"""What the scenarios stand on: a Nexus process, its clients, and the world around it (providers, upstreams, tables)."""
