"""Keep the positions in a PostgreSQL database that many servers share."""
