"""Hold the counts and times of everything that Stepchain tries again or waits for.

A mechanism takes its numbers from a `Retries` value that it is given. Tests give another value
instead of changing constants. docs/retries.md lists the mechanisms with their total times.
"""

from dataclasses import dataclass, fields
from datetime import timedelta
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Retries:
    """Counts, timeouts, periods and grace periods of every mechanism that waits or tries again."""

    # Requests to an S3 server (orchestrator.store.s3).
    # boto3 sends a request this often when the server refuses it or does not answer.
    # boto3 waits longer before every attempt, up to 20 seconds.
    s3_attempts: int = 8
    # A request that receives no byte for this long is sent again.
    s3_read_seconds: float = 60
    # A connection that is not established in this time counts as a failed attempt.
    s3_connect_seconds: float = 5
    # An answer that breaks off is requested again this often. boto3 does not retry these.
    s3_broken_answers: int = 4
    # The pause after the first broken answer. It doubles with every further one.
    s3_broken_pause_seconds: float = 0.2

    # Before anything is spent, a job asks its store once with less patience.
    # The server has this long to answer.
    first_answer_seconds: float = 5
    # It is asked this often.
    first_answer_attempts: int = 2

    # Objects that arrive damaged (orchestrator.store.cache, orchestrator.datasets.stored_split).
    # An object is fetched this often, because the network may have damaged it and not the store.
    damaged_fetches: int = 3
    # A server of pretrained weights that sends nothing for this long is given up.
    weights_download_seconds: float = 60
    # The hub of encoders is given up when it does not answer for this long.
    hub_seconds: float = 10

    # Leases (orchestrator.store.lease).
    # A lease is free for others when its holder has not renewed it for this long.
    lease_seconds: float = 60
    # The holder renews its lease this often, but at least five times per `lease_seconds`.
    heartbeat_seconds: float = 10
    # A worker checks this often that the lease of its step is still its own.
    lease_check_seconds: float = 2
    # A job that waits for the lease of another looks this often whether it is free.
    lease_poll_seconds: float = 2

    # Ray on this machine (orchestrator.cluster.connection).
    # A local cluster is started this often when its processes take longer than 30 s to start.
    local_ray_starts: int = 3

    # Workers (orchestrator.cluster.workers, orchestrator.execution.attempt).
    # Workers without work stay this long for the next step, and keep their room.
    team_idle_seconds: float = 10
    # A job waits this long until workers that it sends away have given their room back.
    team_leave_seconds: float = 15
    # Ray Train looks for room for the workers for this long. Then it does so again.
    start_seconds: float = 600
    # When machines were lost and no other can hold the workers, a job waits this long for one.
    room_seconds: float = 1800
    # It looks for one, and for room, this often.
    room_look_seconds: float = 5
    # When no room was free for its workers for this long, a job says so.
    full_seconds: float = 30
    # Ray Train restarts its own controller this often.
    controller_failures: int = 3
    # An attempt goes on after this many losses of workers without a new checkpoint in between.
    restarts: int = 3
    # A job that is asked to stop has this long to keep checkpoints. Schedulers kill it after 30 s.
    stop_grace_seconds: float = 25

    # Trials of a campaign (orchestrator.campaigns).
    # A step that fails is tried again this often, and so is a trial whose process is lost.
    trial_retries: int = 1
    # What the scheduler read of the lease of another campaign counts for this long.
    scheduler_look_seconds: float = 5

    # Progress (orchestrator.execution.progress_display, orchestrator.execution.store_journal).
    # A follower reads a step's progress this often from a folder.
    look_seconds_folder: float = 1
    # A follower reads a step's progress this often from a server, where requests cost more.
    look_seconds_server: float = 5
    # A worker writes its curves this often to a folder.
    flush_seconds_folder: float = 2
    # A worker writes its curves this often to a server.
    flush_seconds_server: float = 10
    # A log receives a line about a running step at most this often.
    line_seconds: float = 10
    # A log receives a line about a whole campaign at most this often.
    campaign_line_seconds: float = 60

    # MLflow (orchestrator.tracking).
    # The tracker waits this long for further messages before it sends them together.
    tracking_gather_seconds: float = 0.5
    # MLflow has this long to answer a request.
    tracking_request_seconds: int = 10
    # The tracker waits this long after a first failure of MLflow, then twice as long each time.
    tracking_first_pause_seconds: float = 1
    # The tracker waits this long between attempts at most, while MLflow does not answer.
    tracking_pause_seconds: float = 30
    # A run is left out when MLflow, though it answers, failed to take it this often.
    tracking_run_attempts: int = 5
    # A job that ends waits this long until MLflow has received everything.
    tracking_close_seconds: float = 60
    # A job that ends waits this long for an MLflow that did not answer before.
    tracking_last_try_seconds: float = 10
    # A run may be without a lease for this long before a rebuild ends it: its driver may wait.
    rebuild_grace_seconds: float = 600

    # Checks of the doctor (jobs.doctor).
    # A machine of the cluster has this long to answer.
    doctor_node_seconds: float = 120
    # An HTTP server has this long to answer.
    doctor_http_seconds: float = 10

    # Pruning (orchestrator.records.prune).
    # A folder that was written to in this period stays. It covers clocks that differ.
    prune_grace: timedelta = timedelta(hours=24)

    def look_seconds(self, local: bool) -> float:
        """Return the time between looks at a step's progress; `local`: the store is a folder."""
        return self.look_seconds_folder if local else self.look_seconds_server

    def flush_seconds(self, local: bool) -> float:
        """Return the time between writes of the curves; `local`: the store is a folder."""
        return self.flush_seconds_folder if local else self.flush_seconds_server

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only what differs from the defaults, because stores and leases travel often."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: each for name, each in values.items() if each != getattr(Retries, name)}
        return partial(Retries, **changed), ()


DEFAULT_RETRIES = Retries()
