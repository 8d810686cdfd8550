"""TLS against a real server: who is trusted, what is shown, what is said when it goes wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from reconciler.assembly import Connector, credentials
from reconciler.database import ConnectionSettings, complete_dsn
from reconciler.database.connecting import connect
from reconciler.manifest import DatabaseTarget, EnvironmentReference, FileReference, Literal, Timeouts
from reconciler.model import Problem, ProblemError, Reason
from reconciler.redaction import Secret
from tests.applying import table
from tests.certificates import Certificate
from tests.conftest import make_server
from tests.daemon import Daemon
from tests.git import Repository
from tests.servers import TestServer, debian_installation
from tests.tls import ANYWHERE, NAME, TlsServer


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """PostgreSQL 15 as Debian builds it: that of the `embedded` extra knows no TLS."""
    folder = tmp_path_factory.mktemp("tls")
    with make_server(15, folder / "server") as server:
        yield TlsServer(server, folder)


@pytest.fixture(autouse=True)
def nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No certificate, key or setting of whoever runs the tests; returns the new home folder."""
    for name in [name for name in os.environ if name.startswith(("PG", "SSL_CERT_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    (home / ".postgresql").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home / ".postgresql"


@pytest.fixture
def ca(tls: TlsServer, tmp_path: Path) -> str:
    """Path of the right authority."""
    path = tmp_path / "ca.pem"
    path.write_text(tls.authority.text)
    return str(path)


def settings(dsn: str, **given: str | None) -> ConnectionSettings:
    names = {"ca": "root_certificate", "cert": "client_certificate", "key": "client_key"}
    paths = {names[name]: path for name, path in given.items()}
    return ConnectionSettings(dsn=Secret(dsn), connect_timeout=20, **paths)  # type: ignore[arg-type]  # only paths


async def encrypted(dsn: str, **given: str | None) -> bool:
    """Connect, and say whether TLS is in use."""
    connection = await connect(settings(dsn, **given))
    try:
        return connection.pgconn.ssl_in_use
    finally:
        await connection.close()


async def refused(dsn: str, **given: str | None) -> Problem:
    """The problem of a connection that does not come about."""
    with pytest.raises(ProblemError) as caught:
        await encrypted(dsn, **given)
    assert "role-password" not in str(caught.value)
    return caught.value.problem


def assert_says(problem: Problem, *parts: str, remedy: str) -> None:
    assert problem.reason is Reason.TLS_FAILED
    for part in parts:
        assert part in problem.message
    assert remedy in problem.remedy


# who is trusted


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_the_right_authority_is_enough(tls: TlsServer, ca: str, version: str) -> None:
    dsn = tls.dsn(ssl_min_protocol_version=version, ssl_max_protocol_version=version)
    assert await encrypted(dsn, ca=ca)


async def test_another_authority_is_refused_and_the_remedy_is_ca(tls: TlsServer, tmp_path: Path) -> None:
    path = tmp_path / "other.pem"
    path.write_text(tls.stranger.text)
    problem = await refused(tls.dsn(), ca=str(path))
    assert_says(problem, NAME, "cannot be trusted: self-signed", str(path), remedy="`ca`")


async def test_an_expired_certificate_is_called_so(tls: TlsServer, ca: str) -> None:
    with tls.showing(tls.authority.issue(NAME, NAME, expired=True)):
        problem = await refused(tls.dsn(), ca=ca)
    assert_says(problem, NAME, "certificate has expired", remedy="renew the certificate in the server")


async def test_a_certificate_for_another_name_is_refused_and_both_names_told(tls: TlsServer, ca: str) -> None:
    with tls.showing(tls.authority.issue("other.test", "other.test")):
        problem = await refused(tls.dsn(), ca=ca)
        # the authority is the right one: who asks for no more gets no more
        assert await encrypted(tls.dsn(sslmode="verify-ca"), ca=ca)
    assert_says(problem, NAME, "other.test", "does not match host name", remedy="connect by a name")


async def test_an_address_is_verified_like_a_name(tls: TlsServer, ca: str) -> None:
    assert await encrypted(tls.dsn(host=ANYWHERE, hostaddr=""), ca=ca)
    with tls.showing(tls.authority.issue(NAME, NAME)):
        problem = await refused(tls.dsn(host=ANYWHERE, hostaddr=""), ca=ca)
    assert_says(problem, ANYWHERE, NAME, remedy="`hostaddr=ADDRESS`")


async def test_an_address_alone_has_no_name_to_be_verified(tls: TlsServer, ca: str) -> None:
    problem = await refused(tls.dsn(host=""), ca=ca)
    assert_says(problem, ANYWHERE, "host name must be specified", remedy="`host=NAME`")


async def test_without_an_authority_it_is_whom_the_system_trusts(
    tls: TlsServer, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = await refused(tls.dsn())
    assert_says(problem, NAME, "cannot be trusted", remedy="`ca`")
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    assert await encrypted(tls.dsn())
    assert await encrypted(tls.dsn(), ca="system")
    assert await encrypted(tls.dsn(sslrootcert="system", hostaddr="127.0.0.1"))


async def test_without_an_authority_the_file_where_libpq_looks_comes_first(
    tls: TlsServer, nothing_of_ours: Path
) -> None:
    (nothing_of_ours / "root.crt").write_text(tls.authority.text)
    assert await encrypted(tls.dsn())
    (nothing_of_ours / "root.crt").write_text(tls.stranger.text)
    assert_says(await refused(tls.dsn()), "cannot be trusted", remedy="`ca`")


@pytest.mark.parametrize(
    "content", ["", "junk", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"]
)
async def test_an_authority_that_is_none_is_refused(tls: TlsServer, tmp_path: Path, content: str) -> None:
    path = tmp_path / "junk.pem"
    path.write_text(content)
    assert_says(await refused(tls.dsn(), ca=str(path)), "root certificate file", remedy="`ca`")


# where it is not asked for


async def test_a_server_without_tls_is_refused_and_the_ways_out_are_told(server: TestServer, ca: str) -> None:
    role = server.create_role()
    dsn = server.tcp_dsn("postgres", user=role.name, password=role.password)
    elsewhere = make_conninfo(dsn, host=ANYWHERE)
    try:
        for given in (None, ca):
            problem = await refused(elsewhere, ca=given)
            assert_says(
                problem, ANYWHERE, "does not support SSL", "sslmode=verify-full is the default", remedy="`ca`"
            )
            assert "`sslmode=disable`" in problem.remedy
        assert_says(await refused(dsn, ca=ca), "does not support SSL", remedy="`sslmode=disable`")
        problem = await refused(f"{elsewhere} sslmode=require")
        assert_says(problem, "does not support SSL", remedy="`sslmode=disable`")
        assert "default" not in problem.message
        # as it was asked for, and where nothing leaves the machine
        assert not await encrypted(f"{elsewhere} sslmode=disable")
        assert not await encrypted(f"{elsewhere} sslmode=prefer")
        assert not await encrypted(dsn)
        assert not await encrypted(server.dsn(user=role.name))
    finally:
        server.drop_role(role)


async def test_what_the_dsn_the_environment_or_a_service_says_of_sslmode_holds(
    tls: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert await encrypted(tls.dsn(sslmode="require"))
    with monkeypatch.context() as patched:
        patched.setenv("PGSSLMODE", "require")
        assert await encrypted(tls.dsn())
    services = tmp_path / "services"
    services.write_text(f"[orders]\nhost={NAME}\nhostaddr={ANYWHERE}\nsslmode=require\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    dsn = tls.dsn(service="orders", host="", hostaddr="").replace("host='' hostaddr=''", "")
    assert await encrypted(dsn)
    services.write_text(f"[orders]\nhost={NAME}\nhostaddr={ANYWHERE}\n")
    assert_says(await refused(dsn), NAME, "cannot be trusted", remedy="`ca`")
    services.unlink()
    problem = await refused(dsn)
    assert problem.reason is Reason.CONNECTION_FAILED
    assert "service" in problem.message


async def test_a_server_that_takes_tls_only_says_so_to_who_wants_none(tls: TlsServer) -> None:
    assert_says(await refused(tls.dsn(sslmode="disable")), "no encryption", remedy="leave `sslmode` out")


async def test_versions_that_do_not_meet_are_named(tls: TlsServer, ca: str) -> None:
    with tls.configured(ssl_max_protocol_version="TLSv1.2"):
        problem = await refused(tls.dsn(ssl_min_protocol_version="TLSv1.3"), ca=ca)
        assert_says(problem, "protocol version", remedy="`ssl_min_protocol_version`")
        assert await encrypted(tls.dsn(), ca=ca)


# who we are


@pytest.fixture
def client(tls: TlsServer) -> Certificate:
    """The right client certificate."""
    return tls.authority.issue("certified")


async def test_a_client_certificate_is_shown(
    tls: TlsServer, ca: str, client: Certificate, tmp_path: Path
) -> None:
    cert, key = map(str, client.write(tmp_path, "client"))
    assert await encrypted(tls.certified_dsn(), ca=ca, cert=cert, key=key)
    assert await encrypted(tls.certified_dsn(sslcert=cert, sslkey=key), ca=ca)


async def test_a_missing_client_certificate_is_asked_for(tls: TlsServer, ca: str) -> None:
    problem = await refused(tls.certified_dsn(), ca=ca)
    assert_says(problem, NAME, "requires a valid client certificate", remedy="`client_certificate`")


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_client_certificate_of_another_authority_is_called_that(
    tls: TlsServer, ca: str, tmp_path: Path, version: str
) -> None:
    cert, key = map(str, tls.stranger.issue("certified").write(tmp_path, "client"))
    problem = await refused(tls.certified_dsn(ssl_max_protocol_version=version), ca=ca, cert=cert, key=key)
    assert_says(problem, NAME, "unknown ca", remedy="does not trust our certificate")


async def test_an_expired_client_certificate_is_called_that(tls: TlsServer, ca: str, tmp_path: Path) -> None:
    cert, key = map(str, tls.authority.issue("certified", expired=True).write(tmp_path, "client"))
    problem = await refused(tls.certified_dsn(), ca=ca, cert=cert, key=key)
    assert_says(problem, "certificate expired", remedy="our certificate has expired")


async def test_a_client_certificate_for_another_role_is_called_that(
    tls: TlsServer, ca: str, tmp_path: Path
) -> None:
    cert, key = map(str, tls.authority.issue("somebody").write(tmp_path, "client"))
    problem = await refused(tls.certified_dsn(), ca=ca, cert=cert, key=key)
    assert_says(problem, "certificate authentication failed", remedy="for another user")


async def test_a_key_that_cannot_be_used_is_named(
    tls: TlsServer, ca: str, client: Certificate, tmp_path: Path
) -> None:
    cert, key = client.write(tmp_path, "client")
    other = tls.authority.issue("certified").write(tmp_path, "other")[1]
    missing = await refused(tls.certified_dsn(), ca=ca, cert=str(cert))
    assert_says(missing, "not private key file", remedy="`client_key`")
    wrong = await refused(tls.certified_dsn(), ca=ca, cert=str(cert), key=str(other))
    assert_says(wrong, "key values mismatch", remedy="the private key that belongs to it")
    key.chmod(0o644)
    open_to_all = await refused(tls.certified_dsn(), ca=ca, cert=str(cert), key=str(key))
    assert_says(open_to_all, "group or world access", remedy="chmod 600")


async def test_an_encrypted_key_takes_its_password_from_the_dsn_and_nobody_is_asked(
    tls: TlsServer, ca: str, client: Certificate, tmp_path: Path
) -> None:
    cert, key = client.write(tmp_path, "client")
    key.write_text(client.encrypted_key("opensesame"))
    problem = await refused(tls.certified_dsn(), ca=ca, cert=str(cert), key=str(key))
    assert_says(problem, "encrypted", remedy="`sslpassword=...`")
    wrong = await refused(tls.certified_dsn(sslpassword="sesame-open"), ca=ca, cert=str(cert), key=str(key))
    assert_says(wrong, "could not load private key", remedy="private key")
    assert await encrypted(tls.certified_dsn(sslpassword="opensesame"), ca=ca, cert=str(cert), key=str(key))


# where certificates come from


def target(dsn: str, **references: object) -> DatabaseTarget:
    return DatabaseTarget(name="orders", dsn=Literal(dsn), **references)  # type: ignore[arg-type]  # references


async def observed(connector: Connector, wanted: DatabaseTarget) -> None:
    database = connector.open("production", wanted, Timeouts(connect=20))
    try:
        await database.observe()
    finally:
        await database.close()


async def test_certificates_come_as_text_or_path_from_any_source(
    tls: TlsServer, client: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    authority = root / "certificates" / "ca.pem"
    authority.parent.mkdir(parents=True)
    authority.write_text(tls.authority.text)
    # as large as those of cloud providers
    (authority.parent / "bundle.pem").write_text(tls.stranger.text * 300 + tls.authority.text)
    cert, key = client.write(tmp_path, "client")
    key_open_to_all = tmp_path / "mounted.key"
    key_open_to_all.write_text(client.key)
    key_open_to_all.chmod(0o644)
    monkeypatch.setenv("CA_TEXT", tls.authority.text)
    monkeypatch.setenv("CA_LINE", tls.authority.text.replace("\n", "\\n"))
    monkeypatch.setenv("CA_PATH", str(authority))
    monkeypatch.setenv("CERT_TEXT", client.text)
    monkeypatch.setenv("KEY_TEXT", client.key)
    monkeypatch.setenv("KEY_PATH", str(key))
    connector = Connector(credentials(root), tmp_path / "state", root=root)
    authorities = [
        Literal(tls.authority.text),
        Literal("certificates/ca.pem"),
        *(EnvironmentReference(name) for name in ("CA_TEXT", "CA_LINE", "CA_PATH")),
        FileReference("certificates/ca.pem"),
        FileReference("certificates/bundle.pem"),
    ]
    for reference in authorities:
        await observed(connector, target(tls.dsn(), ca=reference))
    pairs = [
        (EnvironmentReference("CERT_TEXT"), EnvironmentReference("KEY_TEXT")),
        (Literal(str(cert)), EnvironmentReference("KEY_PATH")),
        (FileReference(str(cert)), FileReference(str(key_open_to_all))),
    ]
    for certificate, private in pairs:
        wanted = target(
            tls.certified_dsn(), ca=authorities[0], client_certificate=certificate, client_key=private
        )
        await observed(connector, wanted)
    await connector.close()


async def test_a_path_that_leads_nowhere_is_named_with_its_key(tls: TlsServer, tmp_path: Path) -> None:
    connector = Connector(credentials(tmp_path), tmp_path / "state", root=tmp_path)
    for key in ("ca", "client_certificate", "client_key"):
        with pytest.raises(ProblemError) as caught:
            await observed(connector, target(tls.dsn(), **{key: Literal("nowhere/file.pem")}))
        assert_says(
            caught.value.problem, f"`{key}`", f"{tmp_path}/nowhere/file.pem", remedy="correct the path"
        )


async def test_certificates_are_rotated_between_two_connections_and_leave_nothing(
    tls: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    authority, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    monkeypatch.setenv("CERT_PATH", str(tmp_path / "cert.pem"))
    references = {
        "ca": FileReference(str(authority)),
        "client_certificate": EnvironmentReference("CERT_PATH"),
        "client_key": FileReference(str(key)),
    }
    connector = Connector(credentials(tmp_path), tmp_path / "state", root=tmp_path)
    authority.write_text(tls.stranger.text)
    for _ in range(4):
        client = tls.authority.issue("certified")
        (tmp_path / "cert.pem").write_text(client.text)
        key.write_text(client.key)
        if authority.read_text() == tls.stranger.text:
            with pytest.raises(ProblemError):
                await observed(connector, target(tls.certified_dsn(), **references))
            authority.write_text(tls.authority.text)
        await observed(connector, target(tls.certified_dsn(), **references))
        written = list(scratch.rglob("*.pem"))
        # the one in use and the one before it, of authority and key each
        assert len(written) <= 4
        assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    await connector.close()
    assert list(scratch.iterdir()) == []


async def test_other_programs_get_all_of_it_in_their_dsn(
    tls: TlsServer, ca: str, client: Certificate, tmp_path: Path
) -> None:
    cert, key = map(str, client.write(tmp_path, "client"))
    dsn = complete_dsn(settings(tls.certified_dsn(), ca=ca, cert=cert, key=key)).reveal()
    debian = debian_installation(15)
    assert debian is not None
    command = [
        debian.program("psql"),
        "--no-psqlrc",
        "-Atc",
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        dsn,
    ]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "t", done.stderr
    # and what holds without an authority too
    assert "sslmode=verify-full" in complete_dsn(settings(tls.dsn())).reveal()
    assert complete_dsn(settings(tls.dsn(sslmode="require"))).reveal() == tls.dsn(sslmode="require")
    assert complete_dsn(settings("host=localhost")).reveal() == "host=localhost"


def test_a_daemon_goes_on_once_the_right_authority_is_there(
    tls: TlsServer, tmp_path: Path, git_repository: Repository
) -> None:
    name = tls.server.create_database()
    authority = tmp_path / "ca.pem"
    authority.write_text(tls.stranger.text)
    dsn = tls.dsn(dbname=name)
    manifest = f"target_version: 1\ndatabase:\n  dsn: {{env: ORDERS_DSN}}\n  ca: {{file: {authority}}}\n"
    git_repository.commit("Begin", {"manifests/dev.yaml": manifest, "migrations/1_a.sql": table("a")})
    with Daemon(git_repository, variables={"ORDERS_DSN": dsn}) as daemon:
        problem = daemon.wait_problem("dev", "TlsFailed")
        assert "cannot be trusted" in problem["message"]
        assert NAME in problem["message"]
        assert daemon.status("dev", "dev")["state"] == "unreachable"
        authority.write_text(tls.authority.text)
        daemon.wait_ready("dev", 1, timeout=40)
    assert tls.role.password not in daemon.text
