"""How data reads on a page: filters, charts, Markdown, paging."""
