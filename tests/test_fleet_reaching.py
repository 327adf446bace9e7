"""Who comes to a scheduler with the wrong certificate, or none, is told why within seconds;
a worker that waits ends at once.
"""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest
from fleets import TOOLS, Fleet, plan

from edgecap.errors import UsageError
from edgecap.sweep.fleet import certificates, network, reachability
from edgecap.sweep.fleet.connection import connect
from edgecap.sweep.fleet.reachability import Unreachable, check_reachable

pytestmark = pytest.mark.fleet


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    certificates.init(folder / "ours", ["home", "board"])
    certificates.init(folder / "theirs", ["home"])
    return folder


@pytest.fixture(scope="module")
def tls(bundles, tmp_path_factory):
    """A scheduler with TLS."""
    network.configure()
    found = Fleet(
        tmp_path_factory.mktemp("tls") / "devices", "--tls", str(bundles / "ours" / "home")
    )
    yield found
    found.end()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A scheduler without."""
    found = Fleet(tmp_path_factory.mktemp("plain") / "devices")
    yield found
    found.end()


def secured(fleet, bundle):
    return f"tls://127.0.0.1:{fleet.port}", network.security(bundle)


def test_members_are_let_in(tls, plain, bundles):
    check_reachable(*secured(tls, bundles / "ours" / "board"))
    check_reachable(plain.address, None)


def refused(address, security):
    with pytest.raises(Unreachable) as error:
        check_reachable(address, security, 1.0)
    assert "\n" not in str(error.value)
    return str(error.value), error.value.lasting


def test_others_are_told_why(tls, plain, bundles):
    words, lasting = refused(*secured(tls, bundles / "theirs" / "home"))
    assert lasting and "certificate of another fleet" in words
    words, lasting = refused(tls.address, None)
    assert lasting and "give this machine's bundle with --tls" in words
    words, lasting = refused(*secured(plain, bundles / "ours" / "board"))
    assert lasting and "does not use TLS" in words


def test_a_certificate_that_the_scheduler_does_not_take_is_told(tls, bundles):
    security = network.security(bundles / "theirs" / "home")
    context = security.get_connection_args("client")["ssl_context"]
    context.load_verify_locations(bundles / "ours" / "ca.pem")

    class Trusting:
        def get_connection_args(self, role):
            return {"ssl_context": context}

    words, lasting = refused(f"tls://127.0.0.1:{tls.port}", Trusting())
    assert lasting and "refuses this bundle's certificate (unknown ca)" in words


@contextmanager
def listening(say):
    """A server that says something to each caller, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    say(caller)

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_what_is_no_scheduler_is_told(bundles):
    security = network.security(bundles / "ours" / "board")
    with listening(lambda caller: caller.sendall(b"SSH-2.0-Open")) as address:
        assert "not a dask scheduler" in refused(address, None)[0]
        assert "does not use TLS" in refused(address.replace("tcp", "tls"), security)[0]
    with listening(lambda caller: None) as address:
        assert refused(address, None) == (f"{address} closed the connection at once", False)
        words, lasting = refused(address.replace("tcp", "tls"), security)
        assert "closed the connection" in words or "cannot reach" in words
        assert not lasting
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        assert refused(address, None) == (f"no scheduler listens at {address}", False)
    with listening(lambda caller: time.sleep(2)) as address:
        assert "does not answer" in refused(address.replace("tcp", "tls"), security)[0]


def test_a_name_that_is_not_known_is_told():
    words, lasting = refused("tcp://nobody.invalid:8786", None)
    assert "nobody.invalid" in words and not lasting
    assert reachability._host_and_port("tls://[fd00::20]:8786") == ("fd00::20", 8786)


# --- commands ---------------------------------------------------------------------------------


def run(*words):
    found = subprocess.run(
        [sys.executable, "-m", "edgecap", *map(str, words)],
        env=TOOLS,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in found.stderr
    return found


def test_commands_with_another_fleets_bundle_end_with_a_line(tls, bundles, tmp_path):
    theirs = bundles / "theirs" / "home"
    found = run("worker", f"127.0.0.1:{tls.port}", "--tls", theirs, "--cache", tmp_path / "cache")
    assert found.returncode == 2 and "certificate of another fleet" in found.stderr.splitlines()[-1]
    sweep = (
        "sweep",
        "--model",
        "edgecap-ref-xs",
        "-o",
        tmp_path / "out",
        "--scheduler",
        f"127.0.0.1:{tls.port}",
    )
    found = run(*sweep, "--tls", theirs)
    assert found.returncode == 2 and "certificate of another fleet" in found.stderr
    found = run("worker", f"127.0.0.1:{tls.port}", "--cache", tmp_path / "cache")
    assert found.returncode == 2 and "--tls FOLDER" in found.stderr.splitlines()[-1]
    found = run("sweep", "--model", "edgecap-ref-xs", "--scheduler", "192.0.2.1:8786")
    assert found.returncode == 2 and "or --insecure" in found.stderr
    found = run("worker", "127.0.0.1:1", "--name", "../x")
    assert found.returncode == 2 and "cannot name a device" in found.stderr


def test_a_worker_that_waits_is_alone_on_its_cache_and_ends_at_once(plain):
    plain.worker("one")
    plain.wait_for("one", "joined tcp://")
    second = run("worker", plain.address, "--cache", plain.folder / "one")
    assert second.returncode == 2 and "another worker measures on this machine" in second.stderr
    plain.kill("one", signal.SIGINT)
    assert plain.devices["one"].wait(20) == 0
    assert "Traceback" not in plain.said("one")


def test_a_worker_that_measures_ends_at_once_and_its_child_with_it(tls, bundles, tmp_path, cache):
    tls.worker("board", "--tls", str(bundles / "ours" / "board"))
    tls.wait_for("board", "joined tls://")
    plan(tmp_path, 2)
    (tmp_path / "plan.toml").write_text(
        'precisions = "fp32"\ndevice = "board"\ncorpora = "text.jsonl"\ncontexts = 64\n'
    )
    words = [
        "edgecap",
        "sweep",
        str(tmp_path / "plan.toml"),
        "-o",
        str(tmp_path / "out"),
        "--attempts",
        "1",
    ]
    words += [
        "--scheduler",
        f"127.0.0.1:{tls.port}",
        "--tls",
        str(bundles / "ours" / "home"),
        "--cache",
        str(cache),
    ]
    client, worker = tls.begin("client", "-m", *words), psutil.Process(tls.devices["board"].pid)
    began = time.monotonic()
    while not (children := worker.children()):
        assert time.monotonic() - began < 90 and client.poll() is None, tls.said("client")
        time.sleep(0.1)
    tls.kill("board", signal.SIGTERM)
    assert tls.devices["board"].wait(20) == 0
    assert client.wait(60) == 1
    assert not any(
        child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children
    )
    assert "0 measured, 1 failed" in tls.said("client")
    assert "Traceback" not in tls.said("board") + tls.said("client")


def test_a_scheduler_that_cannot_load_edgecap_is_told_before_a_cell_is_tried(tmp_path):
    (tmp_path / "edgecap.py").write_text(
        "raise ImportError('not here')\n"
    )  # stands before the real one
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from distributed.cli.dask_scheduler import main; main()"
    )
    asked = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-dashboard",
        "--dashboard-address",
        "127.0.0.1:0",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *asked], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        with pytest.raises(UsageError, match="cannot load this edgecap"):
            for _ in range(100):
                try:
                    connect(f"tcp://127.0.0.1:{port}", None)
                except UsageError as error:
                    if "no scheduler" not in str(error):
                        raise
                time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
