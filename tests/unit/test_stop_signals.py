"""Stop signals: held back, polled by training, and watched outside it; lost processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from lightning import Callback

from vaelab.commands import stopping
from vaelab.commands.error_messages import is_lost_connection
from vaelab.commands.stopping import Watch
from vaelab.training.callbacks import Checkpoint
from vaelab.training.stop_signals import StopSignals, exit_code, noticed_signals, stop_signals


def send(*numbers):
    """Sends signals to this thread only, for other threads of the tests do not hold them."""
    for number in numbers:
        signal.pthread_kill(threading.get_ident(), number)


@pytest.fixture
def watch(monkeypatch):
    """A watch without a thread; where it would end the process it raises SystemExit."""

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    made = Watch()
    made.command = lambda: "python train.py seed=1"
    return made


@pytest.fixture
def child():
    """A process that sleeps, as one that Lightning's launcher has started."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


class SendAt(Callback):
    """Sends a signal to this thread before a training batch, or before a validation batch."""

    def __init__(self, number, batch=None, validation_batch=None):
        self.number, self.batch, self.validation_batch = number, batch, validation_batch
        self.validated = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == self.batch:
            send(self.number)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, *_):
        if batch_idx == self.validation_batch:
            send(self.number)

    def on_validation_end(self, trainer, module):
        self.validated += 1


def test_poll_takes_held_signals_and_prefers_sigterm():
    signals = StopSignals()
    with signals.hold():
        assert signals.poll() == 0
        send(signal.SIGINT, signal.SIGTERM)
        assert signals.pending() == {signal.SIGINT, signal.SIGTERM}
        assert signals.poll() == signal.SIGTERM
        assert signals.pending() == set()
        assert signals.poll() == signal.SIGTERM  # it is not forgotten
    assert not signals.held


def test_ignored_sighup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in noticed_signals()
        signals = StopSignals()
        with signals.hold():
            send(signal.SIGHUP)
            assert signals.poll() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_exit_codes_of_signals(number, code):
    assert exit_code(number) == code


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_signal_in_fit_stops_after_the_step(fit, tmp_path, number, code):
    sender = SendAt(number, batch=1)
    with stop_signals.hold(), pytest.raises(SystemExit) as stopped:
        fit(sender, Checkpoint(str(tmp_path)), max_epochs=3)
    assert stopped.value.code == code
    assert sender.validated == 0
    assert (tmp_path / "last.ckpt").exists()


def test_signal_waits_for_the_whole_accumulated_step(fit, tmp_path):
    seen = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(batch_idx)

    with stop_signals.hold(), pytest.raises(SystemExit):
        fit(
            SendAt(signal.SIGTERM, batch=0),
            Count(),
            Checkpoint(str(tmp_path)),
            accumulate_grad_batches=3,
        )
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("when", [{"batch": 4}, {"validation_batch": 0}])
def test_signal_before_a_validation_waits_for_its_end(fit, tmp_path, when):
    sender = SendAt(signal.SIGTERM, **when)
    with stop_signals.hold(), pytest.raises(SystemExit):
        fit(sender, Checkpoint(str(tmp_path)), max_epochs=3)
    assert sender.validated == 1
    assert (tmp_path / "best.ckpt").exists()


def test_signals_are_deferred_in_training_only(fit):
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append(stop_signals.deferred)

    with stop_signals.hold():
        fit(Look())
        assert not stop_signals.deferred
    assert seen
    assert all(seen)


def test_watch_ends_with_one_line_unless_training_defers(watch, capfd):
    with stop_signals.hold():
        watch.look_for_signals()
        stop_signals.deferred = True
        send(signal.SIGINT)
        watch.look_for_signals()
        assert stop_signals.poll() == signal.SIGINT
        watch.look_for_signals()
        send(signal.SIGTERM)
        watch.look_for_signals()  # a launcher may ask twice
        send(signal.SIGINT)
        with pytest.raises(SystemExit) as second:
            watch.look_for_signals()
        stop_signals.poll()
        stop_signals.deferred = False
        send(signal.SIGTERM)
        with pytest.raises(SystemExit) as outside:
            watch.look_for_signals()
        stop_signals.poll()
    assert (second.value.code, outside.value.code) == (130, 143)
    assert capfd.readouterr().out == 2 * "stopped; go on with  python train.py seed=1\n"


def lose(watch, processes):
    """Gives a watch processes as a launcher has them; returns the exit code it ends with."""
    watch.launcher = type("Launcher", (), {"procs": processes})
    watch.processes = len(processes) + 1
    while True:
        try:
            watch.look_for_lost_processes()
        except SystemExit as ended:
            return ended.code
        time.sleep(0.05)


def test_watch_tells_of_a_killed_process_and_kills_the_others(watch, child, capfd):
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    killed.kill()
    assert lose(watch, [child, killed]) == 1
    assert capfd.readouterr().err == (
        "error: process 2 of 3 was lost (killed by SIGKILL); go on with  python train.py seed=1\n"
    )
    assert child.wait(10) == -signal.SIGKILL
    assert watch.launcher.procs == []  # so Lightning's observer has none to miss


def test_watch_gives_this_process_time_for_its_own_error(watch, monkeypatch, capfd):
    monkeypatch.setattr(stopping, "FAILING", 0.5)
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    failed.wait()
    began = time.monotonic()
    assert lose(watch, [failed]) == 1
    assert time.monotonic() - began >= 0.5
    assert "process 1 of 2 was lost (exit code 2)" in capfd.readouterr().err


@pytest.mark.parametrize(("code", "seen"), [(143, 143), (130, 130)])
def test_watch_ends_like_a_process_that_a_signal_stopped(watch, capfd, code, seen):
    stopped = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    stopped.wait()
    assert lose(watch, [stopped]) == seen
    assert capfd.readouterr().out.startswith("stopped; go on with")


def test_watch_ignores_processes_that_have_finished(watch):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    watch.children = [done]
    watch.look_for_lost_processes()


def test_lost_connections_are_told_from_other_errors():
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]")
    wrapped = RuntimeError("in backward")
    wrapped.__cause__ = lost
    assert is_lost_connection(lost)
    assert is_lost_connection(wrapped)
    assert not is_lost_connection(RuntimeError("shapes do not match"))
    assert not is_lost_connection(ValueError("gloo"))


@pytest.mark.parametrize(
    "starter", ["stopping.end_with_first_process", "cli.terminate_with_parent"]
)
def test_threads_that_start_before_signals_are_held_do_not_receive_them(starter):
    """A signal to the process would otherwise reach a handler through them."""
    name, function = starter.split(".")
    script = f"""
import os, signal, time
from vaelab.commands import {name}
from vaelab.training.stop_signals import stop_signals

signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
{name}.{function}()
with stop_signals.hold():
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)  # for a thread that would receive it
        assert stop_signals.poll() == signal.SIGTERM
"""
    parent = {"LOCAL_RANK": "1"} if name == "stopping" else {"VAELAB_PARENT": str(os.getpid())}
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | parent, timeout=60)
    assert done.returncode == 0
