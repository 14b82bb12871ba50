"""PostgreSQL: the only folder that imports asyncpg."""
