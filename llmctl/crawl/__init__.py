"""The first stage: URLs, archives and folders become pages."""
