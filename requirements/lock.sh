#!/usr/bin/env bash
# Resolve each environment from pyproject.toml's extras and write what was chosen; never an index or its address.
#
# What goes to production, and the tools that build it, is locked by version and by the hash of every file of that
# version, so that one lock serves all CPUs. Of the environments with torch only versions are locked: the CPU build that
# is at hand, the wheel of the public index and a vendor's own build are one version with three hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

lock_versions() { # environment, extra, constraints…
  local name=$1 extra=$2 constraint=${3:-}
  "$python" -m venv --clear "$scratch/venv"
  # Given first, so that the CPU build that is at hand is taken before another package asks for torch.
  "$scratch/venv/bin/pip" install --quiet "$(grep -o 'torch==[0-9.]*' pyproject.toml)"
  "$scratch/venv/bin/pip" install --quiet ${constraint:+-c "$constraint"} ".[$extra]"
  {
    echo "# Environment \`$name\`, extra \`$extra\` of pyproject.toml; written by \`make lock\`."
    "$scratch/venv/bin/pip" freeze --exclude hlm-retrieval | sed -E 's/\+cpu$//' | LC_ALL=C sort -f
  } >"requirements/$name.txt"
}

lock_hashes() { # environment, what it is, python version, requirements…
  local name=$1 what=$2 version=$3
  shift 3
  {
    echo "# Environment \`$name\`, $what; written by \`make lock\`."
    "$scratch/uv/bin/uv" pip compile --quiet "$@" --constraint requirements/dev.txt --generate-hashes \
      --python-version "$version" --python-platform linux --no-header --no-annotate --no-emit-index-url
  } >"$scratch/$name.txt"
  mv "$scratch/$name.txt" "requirements/$name.txt"
}

lock_versions dev dev
lock_versions offline offline,demo requirements/dev.txt

"$python" -m venv "$scratch/uv"
"$scratch/uv/bin/pip" install --quiet uv
lock_hashes serve 'extra `cpu` of pyproject.toml' 3.11 pyproject.toml --extra cpu
lock_hashes otel 'extras `cpu` and `otel` of pyproject.toml' 3.11 pyproject.toml --extra cpu --extra otel
lock_hashes faiss 'extras `cpu` and `faiss` of pyproject.toml' 3.11 pyproject.toml --extra cpu --extra faiss
lock_hashes gpu 'extra `gpu` of pyproject.toml, for the Python of the GPU image' 3.12 pyproject.toml --extra gpu
# hatchling and editables for this project, the others for hnswlib, which has no wheel.
lock_hashes build 'what builds from source' 3.11 - <<<$'editables\nhatchling\nnumpy\npybind11\nsetuptools\nwheel'
