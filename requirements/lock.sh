#!/usr/bin/env bash
# Resolve each environment from pyproject.toml's extras in a scratch venv and write what pip chose.
# Names and versions only: no index, no hash of a wheel that one platform alone has.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

lock() { # environment, extra, constraints…
  local name=$1 extra=$2 constraint=${3:-}
  "$python" -m venv --clear "$scratch/venv"
  # Given first, so that the CPU build that is at hand is taken before another package asks for torch.
  if [[ $extra != cpu && $extra != gpu ]]; then "$scratch/venv/bin/pip" install --quiet "$(grep -o 'torch==[0-9.]*' pyproject.toml)"; fi
  "$scratch/venv/bin/pip" install --quiet ${constraint:+-c "$constraint"} ".[$extra]"
  {
    echo "# Environment \`$name\`, extra \`$extra\` of pyproject.toml; written by \`make lock\`."
    "$scratch/venv/bin/pip" freeze --exclude hlm-retrieval | sed -E 's/\+cpu$//' | LC_ALL=C sort -f
  } >"requirements/$name.txt"
}

lock dev dev
lock offline offline,demo requirements/dev.txt
lock serve cpu requirements/dev.txt
lock gpu gpu requirements/dev.txt
