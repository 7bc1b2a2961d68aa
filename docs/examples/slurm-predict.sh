#!/bin/bash
# Answers an archive with 64 independent tasks; each writes its part. Submit again after anything: it does what is missing.
#SBATCH --job-name=zsar
#SBATCH --array=0-63
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --mem=32G
#SBATCH --requeue
#SBATCH --signal=TERM@60

srun zsar predict /archive --labels ucf101 --model PE-Core-B-16/meta \
  --shard auto --output /shared/answers
