#include "gil.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#else
#include <thread>
#endif

namespace rnncore {
namespace {

/// Keeps a thread here for good that is made to unwind its stack: nothing of it may run without the GIL,
/// and the process is about to end.
struct NeverUnwinds {
  bool answered = false;

  ~NeverUnwinds() {
    while (!answered) {
#if defined(__unix__) || defined(__APPLE__)
      ::pause();
#else
      std::this_thread::yield();
#endif
    }
  }
};

bool on_main_thread() {
  const auto main = py::module_::import("threading").attr("main_thread")();
  return main.attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
}

} // namespace

ReleaseGil::Released::Released() { let_go(); }

ReleaseGil::Released::~Released() {
  if (state_) take_back();
}

void ReleaseGil::Released::let_go() {
  state_ = PyEval_SaveThread();
  no_fork_.emplace();
}

void ReleaseGil::Released::take_back() {
  no_fork_.reset();
  NeverUnwinds asking;
  PyEval_RestoreThread(state_);
  asking.answered = true;
  state_ = nullptr;
}

/// Handlers run on the main thread alone.
void ReleaseGil::Released::look() {
  take_back();
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  if (!on_main_thread()) stop();
  let_go();
}

} // namespace rnncore
