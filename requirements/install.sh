#!/usr/bin/env bash
# Make the virtual environment of an image from a lock: every file is checked against its hash, and nothing that only
# builds is left in it. `install.sh /opt/venv serve`
set -euo pipefail
venv=$1
lock=$(dirname "$0")/$2.txt
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

python3 -m venv "$tools"
"$tools/bin/pip" install --require-hashes -r "$(dirname "$0")/build.txt"

bash "$(dirname "$0")/hnswlib.sh" "$tools/bin/python" "$lock" "$tools" --require-hashes

python3 -m venv --without-pip "$venv"
"$tools/bin/pip" --python "$venv/bin/python" install --no-deps "$tools"/hnswlib-*.whl
"$tools/bin/pip" --python "$venv/bin/python" install --require-hashes -r "$lock"
