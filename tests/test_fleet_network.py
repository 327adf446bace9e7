"""A fleet's certificates, addresses and scheduler: who gets in, who does not,
and what a waiting worker costs.
"""

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.sweep.fleet import certificates, network
from edgecap.sweep.fleet.scheduler import serve

ROOT = Path(__file__).parent.parent
pytest.importorskip("cryptography")
pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A fleet of two, made once."""
    folder = tmp_path_factory.mktemp("fleets") / "fleet"
    certificates.init(folder, ["home", "board"])
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Another fleet with the same names."""
    folder = tmp_path_factory.mktemp("others") / "fleet"
    certificates.init(folder, ["home", "board"])
    return folder


def carried(bundle, to):
    """A copy that a test may spoil."""
    to.mkdir()
    for file in bundle.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    (to / "key.pem").chmod(0o600)
    return to


# --- certificates -----------------------------------------------------------------------------


def loaded(path):
    from cryptography import x509

    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_device_is_admitted_by_its_authority(fleet):
    from cryptography import x509
    from cryptography.x509.verification import PolicyBuilder, Store

    device, authority = loaded(fleet / "board" / "cert.pem"), loaded(fleet / "ca.pem")
    verified = PolicyBuilder().store(Store([authority])).build_client_verifier().verify(device, [])
    assert [subject.value for subject in verified.subjects] == ["board"]
    days = [
        (one.not_valid_after_utc - one.not_valid_before_utc).days for one in (device, authority)
    ]
    assert days == [731, 3653]  # from a day before
    assert authority.extensions.get_extension_for_class(
        x509.BasicConstraints
    ).value == x509.BasicConstraints(True, 0)
    assert device.serial_number != loaded(fleet / "home" / "cert.pem").serial_number
    assert authority.subject.rfc4514_string() != device.subject.rfc4514_string() == "CN=board"
    assert certificates.check(fleet / "board").name == "board"


def contexts(server, client):
    """Both sides as strict as Python can be: names are compared, extensions must be right."""
    strict = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    sides = []
    for bundle, purpose in ((server, ssl.Purpose.CLIENT_AUTH), (client, ssl.Purpose.SERVER_AUTH)):
        context = ssl.create_default_context(purpose, cafile=bundle / "ca.pem")
        context.load_cert_chain(bundle / "cert.pem", bundle / "key.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= strict
        sides.append(context)
    return sides


def shake(server, client, name):
    """A handshake in memory, until both are content or one refuses."""
    server, client = contexts(server, client)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=name),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(6):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1].getpeercert()["subject"][0][0][1], ends[0].version()


def test_tls_takes_them(fleet, others):
    assert shake(fleet / "home", fleet / "board", "home") == ("board", "TLSv1.3")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(fleet / "home", fleet / "board", "nano")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(fleet / "home", others / "board", "home")


def test_a_device_is_added_and_nothing_written_over(tmp_path):
    assert certificates.init(tmp_path, ["a"]) == [tmp_path / "a"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    assert certificates.init(tmp_path, ["b", "a", "b"]) == [tmp_path / "b"]
    assert before == {path: path.read_bytes() for path in before}
    assert not [path for path in tmp_path.rglob(".*")]


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
def test_keys_are_private_from_their_first_byte(tmp_path, monkeypatch):
    seen = {}
    replace = os.replace
    monkeypatch.setattr(
        os, "replace", lambda a, b: (seen.update({Path(b).name: os.stat(a).st_mode}), replace(a, b))
    )
    old = os.umask(0)
    try:
        certificates.init(tmp_path / "new", ["a"])
    finally:
        os.umask(old)
    assert {name: oct(mode & 0o777) for name, mode in seen.items() if "key" in name} == {
        "ca-key.pem": "0o600",
        "key.pem": "0o600",
    }
    modes = [
        path.stat().st_mode & 0o777
        for path in (tmp_path / "new", *sorted(tmp_path.rglob("*key.pem")))
    ]
    assert modes == [0o700, 0o600, 0o600]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "a\\b", ".a", "-a", "a b", "a\n", "é", "a" * 64]
)
@pytest.mark.parametrize("more", [[], ["good"]])
def test_a_name_that_is_none(tmp_path, name, more):
    with pytest.raises(UsageError, match="cannot name a device"):
        certificates.init(tmp_path, [*more, name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ca", "CA", "ca.pem", "ca-key.pem"])
def test_a_name_that_is_the_authoritys(tmp_path, name):
    with pytest.raises(UsageError, match="a file of the authority"):
        certificates.init(tmp_path, [name])


def spoil(bundle, how, others):
    from cryptography.hazmat.primitives import serialization

    if how == "missing":
        (bundle / "cert.pem").unlink()
    elif how == "stranger":
        (bundle / "ca.pem").write_bytes((others / "ca.pem").read_bytes())
    elif how == "key":
        (bundle / "key.pem").write_bytes((others / "board" / "key.pem").read_bytes())
    elif how == "readable":
        (bundle / "key.pem").chmod(0o640)
    elif how in {"no PEM", "no key"}:
        (bundle / ("cert.pem" if how == "no PEM" else "key.pem")).write_bytes(b"\xff\0")
    elif how == "locked":
        key = serialization.load_pem_private_key((bundle / "key.pem").read_bytes(), None)
        lock = serialization.BestAvailableEncryption(b"secret")
        encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (bundle / "key.pem").write_bytes(key.private_bytes(encoding, shape, lock))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "has no cert.pem"),
        ("stranger", "not signed by"),
        ("key", "is not the key of"),
        ("readable", "chmod 600"),
        ("no PEM", "not a certificate in PEM"),
        ("no key", "not a private key in PEM"),
        ("locked", "encrypted with a password"),
    ],
)
def test_a_spoilt_bundle(fleet, others, tmp_path, how, words):
    bundle = carried(fleet / "board", tmp_path / "board")
    certificates.check(bundle)
    spoil(bundle, how, others)
    with pytest.raises(UsageError, match=words) as error:
        certificates.check(bundle)
    assert "\n" not in str(error.value)


def test_a_bundle_out_of_its_time(fleet):
    now = datetime.now(UTC)
    for days, words in (
        (-2, "is valid from .* set the clock"),
        (731, "was valid until .* set the clock if"),
    ):
        with pytest.raises(UsageError, match=words):
            certificates.check(fleet / "board", now + timedelta(days=days))
    certificates.check(fleet / "board", now + timedelta(days=729))


def test_a_device_never_outlives_its_authority(tmp_path):
    certificates.init(tmp_path, ["a"])
    later = datetime.now(UTC) + timedelta(days=certificates.CA_DAYS - 30)
    certificates.init(tmp_path, ["b"], later)
    assert (
        certificates.check(tmp_path / "b", later).not_after
        == loaded(tmp_path / "ca.pem").not_valid_after_utc
    )
    with pytest.raises(UsageError, match="a/cert.pem was valid until .* to create it again"):
        certificates.init(tmp_path, ["a"], later)
    with pytest.raises(UsageError, match="ca.pem was valid until"):
        certificates.init(tmp_path, ["c"], later + timedelta(days=31))


def test_what_belongs_together_is_missed(fleet, others, tmp_path):
    with pytest.raises(UsageError, match="folder of the whole fleet"):
        certificates.check(fleet)
    with pytest.raises(UsageError, match=r"has no ca\.pem"):
        certificates.check(tmp_path / "nowhere")
    certificates.init(tmp_path / "mine", ["a"])
    carried(others / "board", tmp_path / "mine" / "board")
    with pytest.raises(UsageError, match="of another authority"):
        certificates.init(tmp_path / "mine", ["board"])
    (tmp_path / "mine" / "ca-key.pem").write_bytes((others / "ca-key.pem").read_bytes())
    with pytest.raises(UsageError, match="not the key of"):
        certificates.init(tmp_path / "mine", ["b"])
    (tmp_path / "mine" / "ca-key.pem").unlink()
    with pytest.raises(UsageError, match=r"without ca-key\.pem"):
        certificates.init(tmp_path / "mine", ["b"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        certificates.init(tmp_path / "file", ["b"])


def test_init_tells_what_goes_where(tmp_path):
    run = CliRunner().invoke(cli, ["fleet", "init", "f", "home", "board"])
    assert run.exit_code == 0
    assert re.sub(r"\d{4}-\d\d-\d\d", "DAY", run.output) == (
        "made   f/home: copy it to home; valid until DAY\n"
        "made   f/board: copy it to board; valid until DAY\n"
        "stays  f/ca-key.pem: it admits devices; keep it here\n"
    )
    run = CliRunner().invoke(cli, ["fleet", "init", "f", "home", "nano", "--json"])
    found = json.loads(run.stdout)
    assert [(one["name"], one["made"]) for one in found["bundles"]] == [
        ("home", False),
        ("nano", True),
    ]


@pytest.mark.parametrize("library", ["cryptography", "distributed"])
def test_a_missing_library_is_named(monkeypatch, fleet, library):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"{library}: pip install 'edgecap\[fleet\]'"):
        certificates.check(fleet / "home") if library == "cryptography" else network.configure()


# --- addresses --------------------------------------------------------------------------------

KNOWN = {
    "localhost": ["127.0.0.1", "::1"],
    "inner": ["127.0.1.1"],
    "outer": ["192.0.2.7"],
    "mixed": ["127.0.0.1", "192.0.2.7"],
    "127.1": ["127.0.0.1"],
}


@pytest.fixture
def names(monkeypatch):
    def look_up(host, *_, **__):
        if host not in KNOWN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (number, 0)) for number in KNOWN[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


BUNDLE = Path("board")


@pytest.mark.parametrize(
    ("address", "tls", "insecure", "found"),
    [
        ("127.0.0.1:8786", None, False, "tcp://127.0.0.1:8786"),
        ("tcp://127.9.9.9:1", None, False, "tcp://127.9.9.9:1"),
        ("TCP://localhost:65535", None, False, "tcp://localhost:65535"),
        (" inner:8786 ", None, False, "tcp://inner:8786"),
        ("127.1:8786", None, False, "tcp://127.1:8786"),
        ("[::1]:8786", None, False, "tcp://[::1]:8786"),
        ("[::ffff:127.0.0.1]:8786", None, False, "tcp://[::ffff:127.0.0.1]:8786"),
        ("192.0.2.7:8786", None, True, "tcp://192.0.2.7:8786"),
        ("192.0.2.7:8786", BUNDLE, False, "tls://192.0.2.7:8786"),
        ("tcp://192.0.2.7:8786", BUNDLE, False, "tls://192.0.2.7:8786"),
        ("tls://[fd00::20]:8786", BUNDLE, False, "tls://[fd00::20]:8786"),
        ("[fe80::1%eth0]:8786", BUNDLE, False, "tls://[fe80::1%eth0]:8786"),
        ("home.example.org.:8786", BUNDLE, False, "tls://home.example.org.:8786"),
    ],
)
def test_an_address(names, address, tls, insecure, found):
    assert network.check_address(address, tls, insecure) == found


@pytest.mark.parametrize(
    ("address", "tls", "insecure", "words"),
    [
        ("192.0.2.7:8786", None, False, "--tls FOLDER"),
        ("0.0.0.0:8786", None, False, "--tls FOLDER"),
        ("[::]:8786", None, False, "--tls FOLDER"),
        ("[::ffff:192.0.2.7]:8786", None, False, "--tls FOLDER"),
        ("outer:8786", None, False, "--tls FOLDER"),
        ("mixed:8786", None, False, "--tls FOLDER"),
        ("nobody:8786", None, False, "cannot resolve nobody"),
        ("tls://127.0.0.1:8786", None, False, "requires TLS"),
        ("tls://192.0.2.7:8786", None, True, "requires TLS"),
        ("192.0.2.7:8786", BUNDLE, True, "exclude each other"),
        ("127.0.0.1", None, False, "has no port"),
        ("127.0.0.1:", None, False, "has no port"),
        ("[::1]", None, False, "has no port"),
        *(
            (f"127.0.0.1:{port}", None, False, "no port from 1 to 65535")
            for port in ("0", "65536", "-1", "x", "١", "1/")
        ),
        *(
            (address, BUNDLE, False, "is not the address of a scheduler: write HOST:PORT")
            for address in (
                *(
                    "",
                    ":8786",
                    "[]:8786",
                    "::1:8786",
                    "[::1:8786",
                    "[::g]:8786",
                    "[fd00::1]]:1",
                    "http://h:8786",
                ),
                *(
                    "tcp://tcp://h:1",
                    "tls:///h:1",
                    "a b:1",
                    "user@h:1",
                    "a..b:1",
                    "é:1",
                    "h:1:2",
                    f"{'a' * 64}:1",
                ),
                *("h\n:1", "inproc://h:1", "://h:1"),
            )
        ),
    ],
)
def test_an_address_that_is_refused(names, address, tls, insecure, words):
    with pytest.raises(UsageError, match=words) as error:
        network.check_address(address, tls, insecure)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "tls", "insecure", "found"),
    [
        ("127.0.0.1", None, False, "127.0.0.1"),
        ("localhost", None, False, "localhost"),
        ("[::1]", None, False, "[::1]"),
        ("::1", None, False, "[::1]"),
        ("0.0.0.0", BUNDLE, False, "0.0.0.0"),
        ("", BUNDLE, False, ""),
        ("", None, True, ""),
        ("", None, False, "every address is reachable from other machines"),
        ("0.0.0.0", None, False, "--tls FOLDER"),
        ("::", None, False, "--tls FOLDER"),
        ("mixed", None, False, "--tls FOLDER"),
        ("localhost:8786", None, False, "not a host to listen on"),
        ("tcp://localhost", BUNDLE, False, "not a host to listen on"),
        ("nobody", None, False, "cannot resolve"),
    ],
)
def test_a_host(names, host, tls, insecure, found):
    try:
        assert network.check_host(host, tls, insecure) == found
    except UsageError as error:
        assert found in str(error)


# --- processes --------------------------------------------------------------------------------


@contextmanager
def started(*words):
    """`edgecap fleet start` on a free port, its process and its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "edgecap", "fleet", "start", "--port", "0", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    ) as run:
        try:
            lines = [run.stderr.readline() for _ in range(3)]
            run.address = re.search(r"fleet: (\S+)", lines[0])[1]
            run.lines = lines
            yield run
        finally:
            run.kill()


@pytest.fixture(scope="module")
def running(fleet):
    """A scheduler of the fleet on every address."""
    with started("--host", "0.0.0.0", "--tls", fleet / "home") as run:
        yield run


def local(run):
    return f"tls://127.0.0.1:{run.address.rpartition(':')[2]}"


def test_a_member_gets_in(running, fleet):
    from distributed import Client

    async def ask():
        security = network.security(fleet / "board")
        async with Client(
            local(running), security=security, asynchronous=True, timeout=30
        ) as client:
            return await client.run_on_scheduler(os.getpid)

    assert asyncio.run(ask()) == running.pid


@pytest.mark.parametrize("who", ["another fleet", "no certificate", "plain"])
def test_nobody_else_gets_in(running, fleet, others, who):
    from distributed.comm import connect

    if who == "another fleet":
        context = network.security(others / "board").get_connection_args("client")["ssl_context"]
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it would not mind
    else:
        context = ssl.create_default_context(cafile=fleet / "ca.pem")
        context.check_hostname = False
    address = local(running).replace("tls:", "tcp:") if who == "plain" else local(running)

    async def ask():
        comm = await connect(address, timeout=20, ssl_context=context)
        comm.abort()

    with pytest.raises(OSError):
        asyncio.run(ask())
    assert running.poll() is None


def test_a_member_does_not_follow_a_stranger(running, others):
    from distributed.comm import connect

    context = network.security(others / "board").get_connection_args("client")["ssl_context"]
    with pytest.raises(OSError):
        asyncio.run(connect(local(running), timeout=1, ssl_context=context))


def open_ports(process):
    return [
        (c.laddr.ip, c.laddr.port)
        for c in process.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]


def test_only_tls_listens_beyond_this_machine(running):
    ports = open_ports(psutil.Process(running.pid))
    beyond = [port for host, port in ports if not network.is_loopback(host)]
    assert beyond == [int(running.address.rpartition(":")[2])]
    for port in {port for _, port in ports} - set(beyond):
        for path in ("", "info/main/workers.html", "metrics", "health", "json/identity.json"):
            with pytest.raises(urllib.error.HTTPError, match="404") as error:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20)
            error.value.close()


def test_start_says_what_to_type_next(running, fleet):
    assert running.lines[1:] == [
        f"on each device:  edgecap worker {running.address} --tls FOLDER\n",
        f"to measure:      edgecap sweep plan.toml --scheduler {running.address} "
        f"--tls {fleet / 'home'}\n",
    ]


@pytest.mark.fleet
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--port", "PORT"],
            "port PORT of 127.0.0.1 is in use: give another --port, or 0 for a free one",
        ),
        (
            ["--host", "192.0.2.1", "--insecure"],
            "192.0.2.1 is not an address of this machine: give one that is, or 0.0.0.0 for all",
        ),
    ],
)
def test_a_place_that_cannot_be_had(running, words, told):
    port = running.address.rpartition(":")[2]
    start = [
        sys.executable,
        "-m",
        "edgecap",
        "fleet",
        "start",
        *(word.replace("PORT", port) for word in words),
    ]
    run = subprocess.run(start, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (
        2,
        "",
        f"edgecap: {told.replace('PORT', port)}\n",
    )


def test_junk_is_a_line_and_no_end():
    with started() as run:
        with socket.create_connection(("127.0.0.1", int(run.address.rpartition(":")[2]))) as junk:
            junk.sendall(b"GET / HTTP/1.0\r\n\r\n")
            said = run.stderr.readline()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=60)
    assert said.startswith("tornado.application: ")
    assert (run.returncode, out, err) == (0, "", "")


def silent(run):
    """A connection that says nothing."""
    return socket.create_connection(("127.0.0.1", int(run.address.rpartition(":")[2])))


@pytest.mark.fleet
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_quietly(sent, fleet):
    with started("--tls", fleet / "home") as run, silent(run):
        run.send_signal(sent)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "--tls FOLDER"),
        (["--tls", "nowhere"], "nowhere has no ca.pem"),
        (["--tls", "nowhere", "--insecure"], "exclude each other"),
    ],
)
def test_a_start_that_is_refused(words, told):
    run = CliRunner().invoke(cli, ["fleet", "start", "--port", "0", *words])
    assert isinstance(run.exception, UsageError)
    assert told in str(run.exception)


# --- a worker that waits ----------------------------------------------------------------------


async def met(fleet, look, host="127.0.0.1"):
    """A scheduler and a worker in this process; what `look` finds at the worker."""
    address = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(host, 0, fleet / "home", False, 60.0, address.set_result))
    try:
        await asyncio.wait([task, address], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        worker = network.open_worker(
            await address, network.security(fleet / "board"), local_directory=os.getcwd()
        )
        async with worker:
            return await look(worker)
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_nothing_wakes_a_worker_more_often_than_a_heartbeat(fleet):
    async def look(worker):
        await worker.periodic_callbacks["heartbeat"].callback()
        return {
            name: timer.callback_time / 1000 for name, timer in worker.periodic_callbacks.items()
        }

    seconds = asyncio.run(met(fleet, look))
    assert seconds["heartbeat"] == network.BEAT_S
    assert min(seconds.values()) == network.BEAT_S


def has_six():
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_worker_listens_where_it_reaches_the_scheduler(fleet, host):
    if host == "::1" and not has_six():
        pytest.skip("no IPv6 here")

    async def look(worker):
        return worker.address, open_ports(psutil.Process())

    address, ports = asyncio.run(met(fleet, look, host))
    assert network.is_loopback(re.match(r"tls://\[?([^]]+?)\]?:\d+$", address)[1])
    assert {host for host, _ in ports} <= {"127.0.0.1", "::1"}
