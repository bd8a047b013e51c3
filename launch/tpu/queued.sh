#!/bin/bash
# Trains on Cloud TPU VMs: asks for a queued resource, waits for it, installs, runs on all hosts,
# and begins again where it was preempted.
#
#   launch/tpu/queued.sh NAME TYPE ZONE NFS -- train --config=FILE [flags]
#   launch/tpu/queued.sh mnist1d v5litepod-16 us-central1-a 10.0.0.2:/share -- \
#     train --config=configs/sequence/mnist1d_cnn.py
#
# NFS is mounted on all hosts (Filestore, say): the run's directory is NAME on it, so that all hosts see it
# and a new machine goes on from its checkpoints.
#
#   RUNTIME=v2-alpha-tpuv5-lite   the VM's image
#   SPOT=1                        cheaper, and may be preempted
#   KEEP=1                        leave the machine when the run has ended

set -euo pipefail

if (($# < 6)) || [[ $5 != -- ]]; then
  sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 type=$2 zone=$3 share=$4
shift 5
runtime=${RUNTIME:-v2-alpha-tpuv5-lite}

here=$(cd "$(dirname "$0")/../.." && pwd)
queued=(gcloud compute tpus queued-resources)
on_all=(gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all)

state() {
  "${queued[@]}" describe "$name" --zone="$zone" --format='value(state.state)' 2>/dev/null || echo NONE
}

ask() {
  local more=()
  [[ -n ${SPOT:-} ]] && more+=(--spot)
  "${queued[@]}" create "$name" --node-id="$name" --zone="$zone" \
    --accelerator-type="$type" --runtime-version="$runtime" "${more[@]}"
}

free() {
  "${queued[@]}" delete "$name" --zone="$zone" --force --quiet
}

install() {
  # every host needs the code; a private copy, so that no host waits for another's files
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  git -C "$here" archive --format=tar.gz --output="$archive" HEAD
  gcloud compute tpus tpu-vm scp "$archive" "$name:jdlopt.tar.gz" --zone="$zone" --worker=all
  rm -f "$archive"
  # shellcheck disable=SC2016 # expanded there, not here
  "${on_all[@]}" --command='set -e
    mkdir -p jdlopt && tar -xzf jdlopt.tar.gz -C jdlopt && cd jdlopt
    python3 -m venv .venv
    jax=$(sed -n "s/^jax==//p" constraints.txt)
    .venv/bin/python -m pip install --quiet --constraint constraints.txt . "jax[tpu]==$jax"'
  # %q: the share's name arrives as it was given
  "${on_all[@]}" --command="$(printf 'sudo mkdir -p /mnt/runs && { mountpoint -q /mnt/runs ||
    sudo mount -t nfs %q /mnt/runs; }' "$share")"
}

# an argument with blanks or quotes arrives as it was given
command=$(printf ' %q' "$@" "--workdir=/mnt/runs/$name")

while true; do
  case $(state) in
    NONE) ask ;;
    ACTIVE) ;;
    FAILED | SUSPENDED | SUSPENDING)
      echo "queued.sh: $name is $(state); asking again" >&2
      free
      continue
      ;;
    *)
      sleep 30
      continue
      ;;
  esac
  [[ $(state) == ACTIVE ]] || continue
  install
  code=0
  "${on_all[@]}" --command="cd jdlopt && JDLOPT_COORDINATOR=auto .venv/bin/jdlopt$command" || code=$?
  case $code in
    0 | 1 | 2 | 3)
      [[ -n ${KEEP:-} ]] || free
      exit "$code"
      ;;
  esac
  # 130: saved and interrupted; 124: hung; 255: the machine is gone
  echo "queued.sh: ended with $code; going on from the last checkpoint" >&2
  sleep 10
done
