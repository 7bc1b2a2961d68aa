#!/bin/bash
# Trains on two machines with eight GPUs each; torchrun starts a process per GPU.
#SBATCH --job-name=zsar-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
  --no-python zsar train --data kinetics400 --data-root /shared/k400 --output /shared/runs/k400 --resume
