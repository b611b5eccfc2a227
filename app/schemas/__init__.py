"""Request and response types, by subject: the OpenAPI document is written here."""
