"""The SQL of a store stays in what many databases have in common."""

import re
from pathlib import Path

from bigfib.state.postgres import connection, copy, expiry, schema, session, store

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def statements() -> list[str]:
    """Return all SQL in the modules."""
    found = []
    for module in (store, connection, expiry, schema, copy, session):
        for value in vars(module).values():
            for one in value if isinstance(value, tuple) else (value,):
                sql = one.sql if type(one) is session.Statement else one
                if isinstance(sql, bytes) and re.match(rb"[A-Z]{2,}", sql):
                    found.append(sql.decode())
    return found


def test_sql_uses_the_listed_words_and_no_others() -> None:
    """Before adding to the list, check that CockroachDB, YugabyteDB and Citus have the word."""
    sql = "\n".join(statements())
    assert "UPDATE bigfib_sequences" in sql
    assert "CREATE TABLE" in sql
    without_strings = re.sub(r"'[^']*'", "", sql)
    words = set(re.findall(r"\b[A-Z]{2,}\b", without_strings))
    words |= {f"{name}()" for name in re.findall(r"\b([a-z_]+)\(", without_strings)}
    words |= {f"::{name}" for name in re.findall(r"::(\w+)", without_strings)}
    words |= set(re.findall(r"\b(?:numeric|integer|bytea)\b", without_strings))
    listed = re.search(r"```sql-words\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    assert listed
    assert words == set(listed[1].split())
