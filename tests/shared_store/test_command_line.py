"""Commands that use a store in a database."""

from pathlib import Path

from bigfib.sequences import SHARED
from tests.postgres import Cluster
from tests.shared_store.asking import position, run, transactions


class TestCommandLine:
    def test_commands_step_after_store_init(self, cluster: Cluster) -> None:
        cluster.sql("DROP TABLE bigfib_schema, bigfib_sequences")
        url = cluster.url()
        done = run("next", "--store", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert "create them with `bigfib store init`" in done.stderr
        assert run("store", "init", "--store", url).stdout == "version 2: made\n"
        assert run("store", "init", BIGFIB_STORE=url).stdout == "version 2: is there already\n"
        for arguments, shown in (
            (("next",), "1"),
            (("next", "--by", "9"), "55"),
            (("previous",), "34"),
            (("current",), "34"),
            (("seek", "100"), "354224848179261915075"),
            (("current",), "354224848179261915075"),
        ):
            done = run(*arguments, BIGFIB_STORE=url)
            assert (done.stdout, done.stderr) == (f"{shown}\n", ""), done
        assert position(url) == 100

    def test_current_by_a_user_who_may_only_read_shows_the_term(self, cluster: Cluster) -> None:
        """The user may do nothing else, and the store allows nothing else."""
        cluster.sql(
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT ON bigfib_sequences, bigfib_schema TO reader",
            rf"INSERT INTO bigfib_sequences VALUES ('\x{SHARED.hex()}', 10, 1)",
            # This sequence is old enough to expire.
            r"INSERT INTO bigfib_sequences VALUES ('\x01', 10, 1)",
        )
        before = transactions(cluster.url())
        done = run("current", "--store", cluster.url(user="reader"))
        assert (done.stdout, done.stderr) == ("55\n", "")
        assert run("current", "--store", cluster.url()).stdout == "55\n"
        assert transactions(cluster.url()) == before + 1, "this one"
        cluster.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        cluster.sql("SELECT pg_reload_conf()")
        assert run("current", "--store", cluster.url()).stdout == "55\n"
        done = run("current", "--store", cluster.url("none"))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert 'database "none" does not exist' in done.stderr

    def test_commands_without_psycopg_name_the_extra(self, tmp_path: Path) -> None:
        # Python finds this in place of psycopg, and cannot import it.
        (tmp_path / "psycopg.py").write_text("raise ImportError('none here')\n")
        for command in (("serve", "-p", "0"), ("current",), ("next",), ("store", "init")):
            done = run(*command, "--store", "postgresql://h/x", PYTHONPATH=str(tmp_path))
            assert done.returncode == 1
            assert done.stderr == (
                "bigfib: a store in a database needs psycopg: pip install 'bigfib[postgres]' "
                "(none here)\n"
            )
        done = run("next", "-f", str(tmp_path / "log"), PYTHONPATH=str(tmp_path))
        assert done.stdout == "1\n", "a state log needs none"

    def test_store_init_without_a_database_is_an_error(self, path: Path) -> None:
        for arguments in ((), ("--store", str(path))):
            done = run("store", "init", *arguments)
            assert done.returncode == 1
            assert "name a database with --store" in done.stderr
