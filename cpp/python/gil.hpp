// The GIL, which long calls do without.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "../engine/pieces.hpp"
#include "../engine/threads.hpp"

namespace rnncore {

namespace py = pybind11;

/// Calls shorter than a few microseconds keep the GIL: releasing it would cost as much. The others look for
/// signals between their pieces: what a handler raises, ends them.
///
/// Not pybind11's own release: where the interpreter ends while a daemon thread is in a call, CPython
/// before 3.14 unwinds that thread's stack when it asks for the GIL, and the release's destructor ends the
/// process.
class ReleaseGil {
public:
  explicit ReleaseGil(Index work) {
    if (work > 100'000) released_.emplace();
  }

private:
  class Released final : public Watch {
  public:
    Released();
    ~Released() override;

  private:
    void let_go();
    void take_back();
    void look() override;

    PyThreadState* state_ = nullptr; // null while this thread has the GIL
    std::optional<NoFork> no_fork_;  // ends before the GIL is asked for
  };

  std::optional<Released> released_;
};

} // namespace rnncore
