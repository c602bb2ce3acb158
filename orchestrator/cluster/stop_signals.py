"""Name the signals that stop a job, so that it writes checkpoints and releases its leases."""

import os
import select
import signal
import sys
import threading

hung_up = threading.Event()  # this process's terminal is gone


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return SIGINT, SIGTERM and SIGHUP; the last one not under nohup.

    A terminal that is closed, or an ssh connection that is lost, sends SIGHUP.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def takes(number: int, caught: list[int]) -> bool:
    """Note a signal that was caught; return whether it says anything new.

    A second SIGHUP does not, as the system and the shell both send one. Any other second signal
    ends a job at once.
    """
    if number == signal.SIGHUP:
        if hung_up.is_set():
            return False
        hung_up.set()
        _leave_terminal()
    caught.append(number)
    return True


def send_again(number: int) -> None:
    """Send the main thread a signal that was caught and not answered yet."""
    if number == signal.SIGHUP:
        hung_up.clear()
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, number)


def _leave_terminal() -> None:
    """Let what is printed from now on go nowhere if the terminal is gone.

    Printing would fail otherwise, in the middle of what the job does to end well.
    """
    poll = select.poll()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            poll.register(stream.fileno(), 0)
    for number, events in poll.poll(0):
        if events & (select.POLLERR | select.POLLHUP):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
