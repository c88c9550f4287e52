// The kernels for this processor.
#pragma once

#include <string>
#include <vector>

#include "api.hpp"

namespace rnncore {

/// The best table this processor can run, or the one RNNCORE_ISA names; looked for once. Throws
/// std::runtime_error if there is none.
const KernelTable& kernels();

/// The levels compiled in, lowest first.
std::vector<std::string> levels();

/// The kernels that compute in T with weights as they are.
template <class T>
const Kernels<T>& kernels_of();
template <>
inline const Kernels<float>& kernels_of<float>() {
  return *kernels().float32;
}
template <>
inline const Kernels<double>& kernels_of<double>() {
  return *kernels().float64;
}

/// With weights of a type by its name: "" or T's own, or "bfloat16", "bfloat16_dot" or "int8" where T is
/// float. Throws std::invalid_argument for others.
template <class T>
const Kernels<T>& kernels_of(const std::string& weights);

template <class T>
const Attention<T>& attention_of();
template <>
inline const Attention<float>& attention_of<float>() {
  return *kernels().attention32;
}
template <>
inline const Attention<double>& attention_of<double>() {
  return *kernels().attention64;
}

template <class T>
const Alignment<T>& alignment_of();
template <>
inline const Alignment<float>& alignment_of<float>() {
  return *kernels().alignment32;
}
template <>
inline const Alignment<double>& alignment_of<double>() {
  return *kernels().alignment64;
}

} // namespace rnncore
