"""The local Neo4j as a process: one for a store, on loopback only, gone when nobody needs it."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from neo4j import GraphDatabase
from neo4j.exceptions import AuthError

from kg import neo4j_jars, neo4j_process
from kg.errors import ConfigError, KGError, StoreUnavailable
from kg.local_server import Address, LocalServer
from kg.settings import Settings
from kg.store import CommitUnknown, GraphStore, open_store

pytestmark = pytest.mark.neo4j
ROOT = Path(__file__).parent.parent.parent
HOLD = "import sys; from pathlib import Path; from kg.local_server import LocalServer\n"
HOLD += "print(LocalServer(Path(sys.argv[1])).start().uri, flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of our own, for tests that stop and kill its server; each leaves it stopped."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    LocalServer(folder).stop()
    assert servers_of(folder) == []


def servers_of(home: Path) -> list[int]:
    """Java processes that run on the store of this home."""
    option = neo4j_process.home_option(home / "neo4j")
    return [p.pid for p in psutil.process_iter(["cmdline"]) if option in (p.info["cmdline"] or ())]


def hold(home: Path) -> "subprocess.Popen[str]":
    """Another process that starts the server and keeps using it until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: "subprocess.Popen[str]") -> None:
    process.communicate(timeout=20)


def comes_true(condition: Callable[[], bool], within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_the_running_server_has_the_settings_of_the_design(connection: GraphStore) -> None:
    wanted = dict(line.split("=", 1) for line in neo4j_process.CONFIG.splitlines())
    sizes = {"page_cache_mb": neo4j_process.PAGE_CACHE_MB, "transaction_mb": 256, "transactions_mb": 512}
    public = {name: value.format(**sizes) for name, value in wanted.items() if not name.startswith("internal.")}
    rows = connection.read("SHOW SETTINGS YIELD name, value WHERE name IN $names RETURN name, value", names=[*public])
    got = {row["name"]: row["value"] for row in rows}

    assert got.keys() == public.keys()
    expected = {**public, "server.bolt.listen_address": "127.0.0.1:0", "db.transaction.timeout": "1m"}
    assert {name: normal(value) for name, value in got.items()} == {n: normal(v) for n, v in expected.items()}


def normal(value: str) -> str:
    """``512m`` and ``512.00MiB`` alike."""
    size = re.fullmatch(r"([0-9.]+)(m|MiB)", value)
    return f"{float(size[1]):g}m" if size else value.replace("localhost", "127.0.0.1")


def test_only_one_port_is_open_and_only_on_loopback(home: Path, server: Address) -> None:
    (pid,) = servers_of(home)
    sockets = [s for s in psutil.Process(pid).net_connections("inet") if s.status in (psutil.CONN_LISTEN, "NONE")]

    assert [(s.laddr.ip.removeprefix("::ffff:"), s.laddr.port) for s in sockets] == [
        ("127.0.0.1", int(server.uri.rpartition(":")[2]))
    ]


def test_files_of_csv_and_addresses_are_out_of_reach(connection: GraphStore, home: Path) -> None:
    (home / "neo4j" / "import" / "secret.csv").write_text("1,2\n", encoding="utf-8")
    for url in ("file:///secret.csv", "http://127.0.0.1:9/x", "http://192.0.2.1/x"):
        with pytest.raises(KGError, match="allow_csv_import_from_file_urls|blocked"):
            connection.read("LOAD CSV FROM $url AS row RETURN row", url=url)


def test_a_wrong_password_is_refused(server: Address) -> None:
    for auth in [("neo4j", "wrong"), ("neo4j", "neo4j"), None]:
        with GraphDatabase.driver(server.uri, auth=auth) as driver, pytest.raises(AuthError):
            driver.execute_query("RETURN 1")


def test_the_password_can_be_read_by_its_owner_only(home: Path, server: Address) -> None:
    assert stat.S_IMODE((home / "neo4j" / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "neo4j").stat().st_mode) == 0o700
    assert server.password not in repr(server)
    commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert not any(server.password in command for command in commands)


def test_starting_again_gives_the_same_server(home: Path, server: Address) -> None:
    second = LocalServer(home)
    assert second.start() == server
    second.release()

    assert len(servers_of(home)) == 1
    assert LocalServer(home).status()["running"]


def test_two_processes_at_once_share_one_server_that_goes_with_the_last(one_home: Path) -> None:
    first, second = hold(one_home), hold(one_home)
    assert said(first) == said(second) != ""
    assert len(servers_of(one_home)) == 1

    let_go(first)
    time.sleep(1)
    assert len(servers_of(one_home)) == 1
    let_go(second)
    assert comes_true(lambda: servers_of(one_home) == [])


def test_no_server_outlives_a_killed_process(one_home: Path) -> None:
    process = hold(one_home)
    said(process)
    process.kill()
    let_go(process)

    assert comes_true(lambda: servers_of(one_home) == [])


def test_no_server_outlives_a_process_killed_while_it_starts(one_home: Path) -> None:
    process = hold(one_home)
    assert comes_true(lambda: servers_of(one_home) != [])
    process.kill()
    let_go(process)

    assert comes_true(lambda: servers_of(one_home) == [])


def test_a_killed_server_or_supervisor_is_replaced_and_what_was_committed_is_there(one_home: Path) -> None:
    count = "MATCH (k:Kept) RETURN count(k) AS n"
    server = LocalServer(one_home)
    with open_store(Settings(home=one_home)) as store:
        server.start()
        store.write("CREATE (:Kept)")
        (pid,) = servers_of(one_home)
        os.kill(pid, signal.SIGKILL)
        assert comes_true(lambda: not server.status()["running"])

    with open_store(Settings(home=one_home)) as store:
        assert store.read(count) == [{"n": 1}]
        store.write("CREATE (:Kept)")
        os.kill(int((one_home / "neo4j" / "server.lock").read_text()), signal.SIGKILL)
        assert comes_true(lambda: not server.status()["running"])

    with open_store(Settings(home=one_home)) as store:  # at once, while the old server may still be ending
        assert store.read(count) == [{"n": 2}]
        assert len(servers_of(one_home)) == 1
    server.release()
    assert comes_true(lambda: servers_of(one_home) == [])


def test_stopping_it_in_the_middle_of_a_transaction_is_quick_and_no_commit_is_feigned(one_home: Path) -> None:
    with open_store(Settings(home=one_home)) as store:
        with pytest.raises((CommitUnknown, StoreUnavailable)):
            write_and_stop(store, LocalServer(one_home))


def write_and_stop(store: GraphStore, server: LocalServer) -> None:
    with store.transaction() as transaction:
        transaction.run("CREATE (:Lost)")
        started = time.monotonic()
        assert server.stop()
        assert time.monotonic() - started < 20


def test_start_keeps_it_until_stop(one_home: Path) -> None:
    env = {**os.environ, "KGFUSE_HOME": str(one_home)}

    def kg(*words: str) -> str:
        command = [sys.executable, "-m", "kg", *words]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    assert "bolt://127.0.0.1:" in kg("start")
    time.sleep(1)
    (pid,) = servers_of(one_home)
    assert f"pid {pid}" in kg("status")
    with open_store(Settings(home=one_home)) as store:
        store.read("RETURN 1")
    assert servers_of(one_home) == [pid]

    assert kg("stop") == "Neo4j is stopped\n"
    assert servers_of(one_home) == []
    assert kg("stop") == "no local Neo4j was running\n"


def test_a_start_that_fails_gives_the_last_line_of_the_log(one_home: Path) -> None:
    with pytest.raises(StoreUnavailable, match="did not start; its log in .*logs ends with: .*heap"):
        LocalServer(one_home, heap_mb=1).start()
    assert servers_of(one_home) == []


def test_a_lost_password_file_is_said_to_be_lost(one_home: Path) -> None:
    password = one_home / "neo4j" / "password"
    hidden = password.rename(password.with_name("elsewhere"))
    with pytest.raises(StoreUnavailable, match="lost its file 'password'"):
        LocalServer(one_home).start()
    hidden.rename(password)


def test_a_database_that_cannot_be_recovered_is_said_to_be_unavailable(tmp_path: Path) -> None:
    server = LocalServer(tmp_path)
    server.start()
    server.stop()
    (tmp_path / "neo4j" / "data" / "databases" / "neo4j" / "neostore").write_bytes(b"not a store" * 800)
    try:
        with (
            open_store(Settings(home=tmp_path)) as store,
            pytest.raises(StoreUnavailable, match=r"database .* not available.*debug\.log"),
        ):
            store.read("RETURN 1")
    finally:
        server.stop()


def test_folders_that_cannot_be_written_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="set KGFUSE_HOME"):
        LocalServer(file).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        LocalServer(tmp_path / "home").start()


def test_without_network_the_first_start_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with pytest.raises(StoreUnavailable, match="go online once, or set NEO4J_URI") as caught:
            LocalServer(tmp_path / "home").start()
    assert len(str(caught.value).splitlines()) == 1


def test_an_altered_jar_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = neo4j_jars.cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy = neo4j_jars.cache_folder()
    for jar in real.rglob("*.jar"):
        link = copy / jar.relative_to(real)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(jar)
    altered = next(copy.rglob("neo4j-2026*.jar"))
    altered.unlink()
    altered.write_bytes(b"not the jar that was pinned")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing can be fetched in its place

    with pytest.raises(StoreUnavailable):
        neo4j_jars.ensure_jars()
    assert not altered.exists()


REPLACE = """
import os, shutil, signal, sys
from pathlib import Path
from kg.local_server import LocalServer
from kg.store import connect

home, made, step = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
renames, rename = [], Path.rename

def die(here):
    if here == step:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(self, target):
    moves = "neo4j/old" in str(target) or "neo4j/gone" in str(target) or "neo4j/new" in str(self)
    if moves:
        die(f"before move {len(renames)}")
        renames.append(target)
    return rename(self, target)

def build(folder):
    shutil.copytree(made, folder / "data")
    die("build")

def check(address):
    die("check")
    with connect(address) as store:
        store.write("CREATE (:Checked)")

Path.rename = counted
LocalServer(home).replace_store(build, may=lambda address: die("may"), check=check)
die("end")
"""
COUNT_KEPT = "MATCH (k:Kept) RETURN count(k) AS n"
COUNT_ALL = "MATCH (n) RETURN count(n) AS n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of another home, with one node ``Made`` in it."""
    folder = tmp_path_factory.mktemp("made")
    with open_store(Settings(home=folder)) as store:
        store.write("CREATE (:Made)")
    LocalServer(folder).stop()
    return folder / "neo4j" / "data"


@pytest.mark.slow
@pytest.mark.parametrize("step", ["build", "may", *(f"before move {i}" for i in range(5)), "check", "end"])
def test_a_kill_while_the_store_is_replaced_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, made: Path, step: str
) -> None:
    with open_store(Settings(home=tmp_path)) as store:
        store.write("CREATE (:Kept)")
    died = subprocess.run([sys.executable, "-c", REPLACE, str(tmp_path), str(made), step], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL

    with open_store(Settings(home=tmp_path)) as store:
        wanted = (0, 2) if step == "end" else (1, 1)
        assert (store.read(COUNT_KEPT)[0]["n"], store.read(COUNT_ALL)[0]["n"]) == wanted
    assert not {"new", "old", "gone"} & {path.name for path in (tmp_path / "neo4j").iterdir()}
    LocalServer(tmp_path).stop()
