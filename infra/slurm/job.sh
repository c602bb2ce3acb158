#!/bin/bash
# Start Ray on the nodes of a Slurm allocation, and run a command there:
#
#     sbatch --nodes=4 --gpus-per-node=8 --cpus-per-gpu=8 infra/slurm/job.sh \
#         python -m jobs.campaign run digits_wilson_alpha --store /shared/store
#
# The command runs on the first node. A minute before the time limit it gets SIGTERM, writes
# checkpoints, and the job is put back into the queue. Preempted jobs are put back by Slurm.
# Each time, the command continues where the store ends. A job that is cancelled stays so.
# See docs/cluster.md.
#
#SBATCH --job-name=stepchain
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=stepchain-%j.log
#SBATCH --signal=B:USR1@60

set -u

die() {
    echo "$*" >&2
    exit 2
}

[ $# -gt 0 ] || die "name a command: sbatch infra/slurm/job.sh python -m jobs.campaign run ..."
[ -n "${SLURM_JOB_ID:-}" ] || die "this script runs inside a Slurm allocation: sbatch $0 $*"

nodes=$SLURM_JOB_NUM_NODES
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
# Jobs that share a node differ in their ports, and users in their folders.
port=$((20000 + SLURM_JOB_ID % 3000 * 4))
ip=${STEPCHAIN_HEAD_IP:-$(python -c "from ray.util import get_node_ip_address as f; print(f())")}
temporary=${STEPCHAIN_SLURM_TMP:-/tmp}/ray-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}

# Everything on these nodes can reach Ray's ports. Only this job knows the token.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

ray_head=
driver=
stopped=
again=

# Start Ray in the background on so many nodes: start_ray COUNT WHICH-NODES OPTION-OF-RAY...
# Each node is declared with the CPUs and GPUs that Slurm gives this job there.
start_ray() {
    local count=$1 which=$2
    shift 2
    # shellcheck disable=SC2016  # the node expands it
    srun --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --overlap "$which" \
        bash -c 'exec ray start --block \
            --num-cpus="${SLURM_CPUS_ON_NODE:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "$@"' \
        ray "$@" &
}

# Run a command in the background, and wait for its end or for that of Ray's head.
run() {
    "$@" &
    driver=$!
    while kill -0 "$driver" 2>/dev/null; do
        if ! kill -0 "$ray_head" 2>/dev/null; then
            echo "Ray ended on the first node: what it says stands above" >&2
            kill -TERM "$driver"
            (sleep 30 && kill -KILL "$driver") >/dev/null 2>&1 &
            break
        fi
        sleep 1 &
        wait $!
    done
    wait "$driver"
}

# Let the driver write checkpoints.
# shellcheck disable=SC2317,SC2329  # it is called by the traps
stop() {
    stopped=yes
    [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null
}
trap stop TERM                # cancelled
trap 'again=yes; stop' USR1   # the time limit is near, or, where Slurm is told to, preempted

start_ray 1 --nodelist="$head" --head \
    --node-ip-address="$ip" --port="$port" --temp-dir="$temporary" \
    --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) \
    --resources='{"orchestrator": 64}'
ray_head=$!
if [ "$nodes" -gt 1 ]; then
    start_ray $((nodes - 1)) --exclude="$head" --address="$ip:$port"
fi

export RAY_ADDRESS=$ip:$port
run python -m infra.slurm.wait_for_nodes "$nodes"
code=$?
if [ $code = 0 ] && [ -z "$stopped" ]; then
    run "$@"
    code=$?
fi

# Ray ends with the job's steps: these, and nothing of other jobs on the node.
mapfile -t steps < <(jobs -p)
[ ${#steps[@]} = 0 ] || kill -TERM "${steps[@]}" 2>/dev/null
wait

if [ -n "$again" ]; then
    echo "stopped before the time limit with code $code, and put back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
