"""One self-contained HTML page: text, tables, line charts and pictures, nothing to load from anywhere."""
