// Checks that count what is wrong and say where, with numbers to tell it by.
#pragma once

#include <cstdarg>
#include <cstdio>

/// What a program returns whose level the processor does not run; CTest then calls it skipped.
constexpr int skipped = 77;

inline int faults = 0;

/// The first twenty faults are printed.
[[gnu::format(printf, 5, 6)]] inline void check_that(bool right, const char* file, int line,
                                                     const char* condition, const char* format, ...) {
  if (right || ++faults > 20) return;
  std::printf("%s:%d: not %s: ", file, line, condition);
  std::va_list values;
  va_start(values, format);
  std::vprintf(format, values);
  va_end(values);
  std::printf("\n");
}

/// CHECK(x == y, "x %d", x)
#define CHECK(condition, ...) check_that(condition, __FILE__, __LINE__, #condition, __VA_ARGS__)
