#!/bin/bash
# Starts a run on a GKE cluster that xpk made, which writes a JobSet and submits it to Kueue.
#
#   launch/tpu/xpk.sh CLUSTER NAME TPU_TYPE SLICES IMAGE DIR -- train --config=FILE [flags]
#   launch/tpu/xpk.sh my-cluster mnist1d v5litepod-16 2 REGISTRY/jdlopt /runs -- \
#     train --config=configs/sequence/mnist1d_cnn.py
#
# DIR is where a storage of the cluster is mounted that all pods can write (`xpk storage attach --auto-mount=true
# --mount-point=DIR`): the run's directory is NAME in it.
#
# xpk restarts after exit codes from 127 on, so after 130 (saved and interrupted), and after 124 (hung), which
# it is told of; not after 2 (wrong input) and 3 (diverged).

set -euo pipefail

if (($# < 8)) || [[ $7 != -- ]]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
cluster=$1 name=$2 type=$3 slices=$4 image=$5 dir=$6
shift 7

command=$(printf ' %q' "$@" "--workdir=$dir/$name")
exec xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$type" \
  --num-slices="$slices" --docker-image="$image" --max-restarts="${RESTARTS:-10}" \
  --restart-on-exit-codes=124 --termination-grace-period-seconds="${GRACE:-120}" \
  --command="JDLOPT_COORDINATOR=auto jdlopt$command"
