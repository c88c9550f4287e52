#!/usr/bin/env bash
# zig's Clang, with the headers and libraries of another system, as CMake calls a compiler:
#
#   CXX="tests/portability/zig.sh x86_64-linux-gnu.2.28" cmake ...
#
# PYTHON names an interpreter with the package ziglang. Processors have other names there; and without -O, as CMake tries what
# a compiler can do, it would link a sanitizer. In pip's isolated builds PYTHONPATH hides what that interpreter has.
set -euo pipefail
target=$1
shift
exec env -u PYTHONPATH "${PYTHON:-python3}" -m ziglang c++ -target "$target" -fno-sanitize=undefined "${@/#-march=x86-64-/-march=x86_64_}"
