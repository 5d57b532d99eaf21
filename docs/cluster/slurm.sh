#!/bin/bash
# `sbatch docs/cluster/slurm.sh sweeps/paper.yaml`: a Ray cluster inside one Slurm job, then the
# sweep on it. Submit it again to continue; `results` must be a mount that all nodes see.
#SBATCH --job-name=featgan
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@600
set -euo pipefail

sweep=${1:?usage: sbatch docs/cluster/slurm.sh SWEEP_FILE}
source .venv/bin/activate
export RAY_memory_monitor_refresh_ms=0 RAY_USAGE_STATS_ENABLED=0
export RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9/

head=$(hostname)
ip=$(hostname --ip-address | awk '{print $1}')
# One port for each job: several may share a node.
export RAY_ADDRESS=$ip:$((20000 + SLURM_JOB_ID % 20000))
has="--num-cpus=$SLURM_CPUS_PER_TASK --num-gpus=${SLURM_GPUS_ON_NODE:-0} --block"

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --node-ip-address="$ip" --port="${RAY_ADDRESS##*:}" --include-dashboard=false $has &
until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do
  kill -0 $! 2>/dev/null || { echo "slurm.sh: ray start has ended on $head" >&2; exit 1; }
  sleep 1
done
if ((SLURM_NNODES > 1)); then
  srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" --overlap \
    ray start --address="$RAY_ADDRESS" $has &
fi

python harness/sweep.py "$sweep" &
driver=$!
# Ten minutes before the time is up every run checkpoints and stops.
trap 'kill -INT $driver' INT TERM
code=0
wait $driver || code=$?
while kill -0 $driver 2>/dev/null; do code=0; wait $driver || code=$?; done
exit $code
