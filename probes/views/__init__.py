"""Views: traces as tables, pictures and exported files."""
