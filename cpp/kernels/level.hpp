// What this level is called, and what the compiler was told to use. Needs nothing, so that a missing flag
// is the first thing a build complains of.
#pragma once

#include "../engine/api.hpp"

#define RNNCORE_TEXT_(x) #x
#define RNNCORE_TEXT(x) RNNCORE_TEXT_(x)

namespace rnncore::RNNCORE_LEVEL {

constexpr char level[] = RNNCORE_TEXT(RNNCORE_LEVEL);

// What the compiler was told to use, whatever the level is called, and the vectors that belong to it.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
constexpr char macros[] = "v4";
constexpr Index vector_bytes = 64;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__BMI2__)
constexpr char macros[] = "v3";
constexpr Index vector_bytes = 32;
#elif defined(__SSE4_2__) && defined(__POPCNT__)
constexpr char macros[] = "v2";
constexpr Index vector_bytes = 16;
#else
constexpr char macros[] = "generic";
constexpr Index vector_bytes = 0; // whatever Eigen has
#endif

// Where this is compiled for AVX-512 without VNNI, products that use it, or BF16, are as well: levels of
// their own, which share all else.
#if defined(__AVX512F__) && !defined(__AVX512VNNI__)
#define RNNCORE_ALSO_VNNI
#endif
// Whether there are products of two bfloat16 at once, in this level or in one of those.
#if defined(RNNCORE_ALSO_VNNI) || defined(__AVX512BF16__)
#define RNNCORE_HAS_BF16_DOT
#endif

constexpr bool same(const char* a, const char* b) { return *a == *b && (!*a || same(a + 1, b + 1)); }

static_assert(same(level, macros) || same(level, "native"), "compiled without the flags of its level");

} // namespace rnncore::RNNCORE_LEVEL
