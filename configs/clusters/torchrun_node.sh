#!/usr/bin/env bash
# This machine's part of a training run. Start it on every machine with the same arguments; they meet at HEAD:PORT:
#   HEAD=10.0.0.1 NNODES=8 configs/clusters/torchrun_node.sh --config configs/llama2_7b_a800x64.yaml [key=value ...]
# One machine: configs/clusters/torchrun_node.sh --config configs/llama2_7b_a800x8.yaml
# The checkout, the model, the data and run_dir must lie on storage that every machine sees.
#
# Variables, with their defaults:
#   NNODES=1          machines
#   HEAD              name or address of one of them, the same on all (needed when NNODES > 1)
#   PORT=29500        free on HEAD
#   GPUS              processes on this machine (default: its GPUs)
#   RUN_ID=sdrrl      names the meeting; machines with another id are not let in
#   NODE              name by which the others reach this machine (default: its host name)
#   MAX_RESTARTS=1    times that all processes are started again, from the last checkpoint, when one of them dies
#   SAVE_SECONDS=240  time to write a checkpoint after SIGTERM before the processes are killed (torch's own: 30)
#   JOIN_SECONDS=1800 time to wait for the other machines
#   TORCHRUN          default: .venv/bin/torchrun where there is one, else torchrun on the PATH (containers)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

NNODES=${NNODES:-1}
PORT=${PORT:-29500}
if [[ -z ${TORCHRUN:-} ]]; then
  TORCHRUN=torchrun
  [[ -x .venv/bin/torchrun ]] && TORCHRUN=.venv/bin/torchrun
fi
if [[ -z ${GPUS:-} ]]; then
  if ! command -v nvidia-smi >/dev/null; then
    echo "error: no nvidia-smi here; say how many processes: GPUS=8 $0 ..." >&2
    exit 2
  fi
  GPUS=$(nvidia-smi --list-gpus | wc -l)
fi
if (( NNODES > 1 )); then
  : "${HEAD:?name one machine, the same on all: HEAD=10.0.0.1 NNODES=$NNODES $0 ...}"
  conf=join_timeout=${JOIN_SECONDS:-1800}
  # torchrun asks the host name whether HEAD is this machine; where that name means 127.0.0.1 (Debian's default) an
  # address as HEAD would find nobody at home, and all machines would wait in vain.
  for address in $(getent ahosts "$HEAD" | awk '{print $1}' | sort -u); do
    case "$address" in 127.*|::1) continue ;; esac
    if [[ " $(hostname -I 2>/dev/null) " == *" $address "* ]]; then conf+=,is_host=true; break; fi
  done
  meet=(--rdzv-endpoint "$HEAD:$PORT" --rdzv-conf "$conf")
  [[ -n ${NODE:-} ]] && meet+=(--local-addr "$NODE")
else
  meet=(--rdzv-endpoint localhost:0) # a free port; two runs on one machine do not meet
fi

# What is set already wins. NCCL finds the network itself; where it picks a wrong one: NCCL_SOCKET_IFNAME, NCCL_IB_HCA.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
export TORCH_NCCL_ASYNC_ERROR_HANDLING=${TORCH_NCCL_ASYNC_ERROR_HANDLING:-1} # a lost rank ends the others
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1} # Megatron: tensor parallelism overlaps in order
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${SAVE_SECONDS:-240}
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # a restart must not read the addresses of the processes before it
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TRANSFORMERS_OFFLINE=${TRANSFORMERS_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH}" # this checkout, also inside a container

exec "$TORCHRUN" --nnodes "$NNODES" --nproc-per-node "$GPUS" --max-restarts "${MAX_RESTARTS:-1}" \
  --rdzv-backend c10d --rdzv-id "${RUN_ID:-sdrrl}" "${meet[@]}" recipes/sdrrl_pretrain.py "$@"
