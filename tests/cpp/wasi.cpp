// For WebAssembly: zig's C++ library is built without exceptions. What throws ends the program.
#include <cstddef>
#include <cstdio>
#include <cstdlib>

extern "C" {

void* __cxa_allocate_exception(std::size_t bytes) noexcept { return std::malloc(bytes); }

[[noreturn]] void __cxa_throw(void*, void*, void (*)(void*)) {
  std::fputs("an exception was thrown\n", stderr);
  std::abort();
}

/// There is one thread, and at its end nothing has to be undone.
int __cxa_thread_atexit(void (*)(void*), void*, void*) noexcept { return 0; }

} // extern "C"
