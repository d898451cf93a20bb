"""A database that is reached by TLS."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.postgres import Cluster
from tests.service import Serve
from tests.shared_store.asking import run


class TestEncrypted:
    def test_server_is_verified_and_another_is_refused(
        self, serve: Serve, cluster: Cluster, tmp_path: Path, require: Callable[[str], str]
    ) -> None:
        require("openssl")
        cluster.sql(
            "CREATE ROLE app LOGIN PASSWORD 'secret'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON bigfib_sequences TO app",
            "GRANT SELECT, UPDATE ON bigfib_schema TO app",
        )
        authority = cluster.offer_tls("app")
        passfile = tmp_path / "pgpass"
        passfile.write_text("localhost:*:*:app:secret\n")
        passfile.chmod(0o600)
        server = f"postgresql://app@localhost:{cluster.port}/postgres?passfile={passfile}"
        verified = f"{server}&sslmode=verify-full&sslrootcert="
        service = serve("--store", f"{verified}{authority}")
        assert [service.value("next") for _ in range(3)] == [1, 1, 2]
        assert cluster.sql(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
            "WHERE usename = 'app'"
        ) == [(True,)]
        assert run("current", "--store", f"{verified}{authority}").stdout == "2\n"
        # A certificate of another authority, and one with another name.
        wrong = tmp_path / "wrong.pem"
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=b")
        files = ("-keyout", tmp_path / "key", "-out", wrong)
        subprocess.run(["openssl", *new, *files], check=True, capture_output=True)
        elsewhere = verified.replace("@localhost", "@127.0.0.1")
        for command, url, says in (
            (("serve", "-p", "0"), f"{verified}{wrong}", "certificate verify failed"),
            (("current",), f"{verified}{wrong}", "certificate verify failed"),
            (("next",), f"{elsewhere}{authority}", "does not match host name"),
            (("next",), f"{server}&sslmode=disable", "no encryption"),
            (("store", "init"), f"{verified}/nowhere.pem", "/nowhere.pem"),
        ):
            done = run(*command, "--store", url)
            assert (done.returncode, done.stdout) == (1, "")
            assert says in done.stderr
            assert done.stderr.count("\n") == 1
            assert "secret" not in done.stderr
