"""Report: one or more traces as a page that is sent to somebody, in HTML or Markdown."""
