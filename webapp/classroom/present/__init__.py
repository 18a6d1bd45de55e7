"""Presentation of data on a page: template filters, texts, charts, Markdown."""
