"""The site's own database: connections, key, schema, and the instance directory."""
