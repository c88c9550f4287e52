// Vectors as Eigen has them for this processor, under the name `packets`. Where it has none (WebAssembly,
// say), the compiler's own of 16 bytes, with those of Eigen's functions that kernels use.
#pragma once

#include <Eigen/Core>
#include <cstring>

#include "../engine/api.hpp"
#include "../engine/compiler.hpp"

namespace rnncore::RNNCORE_LEVEL {

/// So many bytes of numbers: a type of the compiler's own, with the language's operators on every lane.
template <class Number, std::size_t bytes>
struct VectorOf {
  typedef Number Type __attribute__((vector_size(bytes)));
};

#if defined(EIGEN_VECTORIZE)

namespace packets = Eigen::internal;

template <class T>
using PacketOf = typename Eigen::internal::packet_traits<T>::type;

#else

template <class T>
using PacketOf = typename VectorOf<T, 16>::Type;

namespace packets {

template <class P>
constexpr int size = sizeof(P) / sizeof(P{}[0]);

/// The same bits, as words.
template <class P>
RNNCORE_INLINE auto words(P a) {
  using Word = std::conditional_t<size<P> == 4, uint32_t, uint64_t>;
  return (typename VectorOf<Word, sizeof(P)>::Type)a;
}

template <class P, class T>
RNNCORE_INLINE P pset1(T value) { // not by adding to zero, which would lose the sign of -0
  P a;
  for (int i = 0; i < size<P>; ++i) a[i] = value;
  return a;
}
template <class P, class T>
RNNCORE_INLINE P ploadu(const T* from) {
  P a;
  std::memcpy(&a, from, sizeof a);
  return a;
}
template <class P, class T>
RNNCORE_INLINE void pstoreu(T* to, P a) {
  std::memcpy(to, &a, sizeof a);
}

template <class P>
RNNCORE_INLINE P padd(P a, P b) {
  return a + b;
}
template <class P>
RNNCORE_INLINE P psub(P a, P b) {
  return a - b;
}
template <class P>
RNNCORE_INLINE P pmul(P a, P b) {
  return a * b;
}
template <class P>
RNNCORE_INLINE P pdiv(P a, P b) {
  return a / b;
}
template <class P>
RNNCORE_INLINE P pnegate(P a) {
  return -a;
}
template <class P>
RNNCORE_INLINE P pmadd(P a, P b, P c) {
  return a * b + c;
}
template <class P>
RNNCORE_INLINE P psqrt(P a) {
  for (int i = 0; i < size<P>; ++i) a[i] = size<P> == 4 ? __builtin_sqrtf(a[i]) : __builtin_sqrt(a[i]);
  return a;
}

template <class P>
RNNCORE_INLINE P pand(P a, P b) {
  return (P)(words(a) & words(b));
}
template <class P>
RNNCORE_INLINE P por(P a, P b) {
  return (P)(words(a) | words(b));
}
template <class P>
RNNCORE_INLINE P pcmp_le(P a, P b) {
  return (P)(a <= b);
}
template <class P>
RNNCORE_INLINE P pselect(P mask, P a, P b) {
  return (P)((words(mask) & words(a)) | (~words(mask) & words(b)));
}
template <class P>
RNNCORE_INLINE P pmax(P a, P b) {
  return pselect((P)(a < b), b, a); // a, if one of them is NaN
}
template <class P>
RNNCORE_INLINE P pmin(P a, P b) {
  return pselect((P)(b < a), b, a);
}

template <class P>
RNNCORE_INLINE auto predux(P a) {
  auto sum = a[0];
  for (int i = 1; i < size<P>; ++i) sum += a[i];
  return sum;
}
template <class P>
RNNCORE_INLINE auto predux_max(P a) {
  auto most = a[0];
  for (int i = 1; i < size<P>; ++i) most = most < a[i] ? a[i] : most;
  return most;
}
template <class P>
RNNCORE_INLINE auto predux_min(P a) {
  auto least = a[0];
  for (int i = 1; i < size<P>; ++i) least = a[i] < least ? a[i] : least;
  return least;
}

template <class P, int n>
struct PacketBlock {
  P packet[n];
};
template <class P, int n>
RNNCORE_INLINE void ptranspose(PacketBlock<P, n>& square) {
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < i; ++k) {
      const auto a = square.packet[i][k];
      square.packet[i][k] = square.packet[k][i];
      square.packet[k][i] = a;
    }
}

} // namespace packets

#endif

} // namespace rnncore::RNNCORE_LEVEL
