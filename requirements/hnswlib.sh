#!/usr/bin/env bash
# Build the wheel of hnswlib, which has none, from the sources that a lock names: `hnswlib.sh PYTHON LOCK OUT [OPTION…]`
#
# As it is, loading a graph holds Python's interpreter lock: 65 ms for 54,667 ads of dim 384, in which a service that
# loads its next release answers nobody. Two lines let other threads run while a graph is loaded and while it is freed.
set -euo pipefail
python=$1 lock=$2 out=$3
shift 3
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT

awk '/^hnswlib==/,!/\\$/' "$lock" >"$sources/hnswlib.txt"
"$python" -m pip download --disable-pip-version-check --quiet "$@" --no-build-isolation --no-deps --no-binary :all: \
  --dest "$sources" -r "$sources/hnswlib.txt"
tar --extract --gzip --directory "$sources" --file "$sources"/hnswlib-*.tar.gz

bindings=$(echo "$sources"/hnswlib-*/python_bindings/bindings.cpp)
sed --in-place \
  -e '/ ~Index() {/a\        py::gil_scoped_release released;' \
  -e '/&Index<float>::loadIndex,/,/)$/s/= false)$/= false, py::call_guard<py::gil_scoped_release>())/' "$bindings"
if [[ $(grep -c 'gil_scoped_release' "$bindings") != 5 ]]; then
  echo "$lock: names an hnswlib whose bindings.cpp is not the one that requirements/hnswlib.sh knows how to change" >&2
  exit 1
fi

# On x86-64 for CPUs since 2013, not for the one that builds: a wheel compiled with -march=native dies by SIGILL elsewhere.
if [[ $(uname -m) == x86_64 ]]; then export CXXFLAGS=-march=x86-64-v3; fi
HNSWLIB_NO_NATIVE=1 "$python" -m pip wheel --disable-pip-version-check --quiet --no-cache-dir --no-build-isolation \
  --no-deps --wheel-dir "$out" "$(dirname "$(dirname "$bindings")")"
