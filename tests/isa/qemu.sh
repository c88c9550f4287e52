#!/usr/bin/env bash
# The tests' core on emulated processors: the installed module as a Nehalem, which has SSE4.2 and no more,
# and as a Haswell, which has AVX2 and no more; and the kernels' C++ tests as an aarch64.
#
#   apt-get install qemu-user-static g++-aarch64-linux-gnu
#   tests/isa/qemu.sh [python]
#
# About four minutes. What is not installed is left out, and said so. Eigen is the system's, or cmeel-eigen
# beside rnncore.
set -euo pipefail
python=$(command -v "${1:-python}")
cd "$(dirname "$0")/../.."
export RNNCORE_NUM_THREADS=2 PYTHONDONTWRITEBYTECODE=1
# Every cell against the reference; what takes the emulator long is left to the processor it runs on.
core="not Differences and not T1000 and not T300 and not depth3 and not mingru_ and not ToTheBit"

as() { # processor, arguments of Python; the emulator names features that it lacks itself: no matter
  qemu-x86_64-static -cpu "$1" "$python" "${@:2}" 2> >(grep -v "TCG doesn't support" >&2)
}

emulate() { # processor, the level it must get, one that it must refuse
  echo "$1"
  as "$1" -c "import rnncore; got = rnncore.info()['instruction_set']; assert got == '$2', got"
  if RNNCORE_ISA=$3 as "$1" -c "import rnncore" 2>/dev/null; then
    echo "$1 accepts RNNCORE_ISA=$3" && return 1
  fi
  as "$1" -m pytest -qq -x -p no:cacheprovider -k "$core" \
    tests/recurrent/test_recurrent.py tests/layers/test_activations.py
}

if command -v qemu-x86_64-static >/dev/null; then
  emulate Nehalem v2 v3
  emulate Haswell v3 v4
else
  echo "no qemu-x86_64-static: x86 processors are not emulated"
fi

if command -v qemu-aarch64-static >/dev/null && command -v aarch64-linux-gnu-g++ >/dev/null; then
  beside=$("$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")
  for flags in "" -march=armv8.2-a+dotprod; do # int8 products have an instruction of their own there
    echo "aarch64 $flags"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    cmake -S . -B "$build" -DRNNCORE_MODULE=OFF -DRNNCORE_TESTS=ON -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux \
      -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_CXX_FLAGS="$flags" \
      -DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64-static \
      -DCMAKE_PREFIX_PATH="$beside" >"$build/log"
    cmake --build "$build" >"$build/log"
    ctest --test-dir "$build" --output-on-failure
    rm -rf "$build"
  done
else
  echo "no qemu-aarch64-static or no aarch64-linux-gnu-g++: aarch64 is not emulated"
fi
