"""The site's own database: key, schema, and the instance directory."""
