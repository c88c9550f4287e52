// Arrays that a compiled layer reads and writes where they lie, although others may hold them as well.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "arrays.hpp"

namespace rnncore {

/// Refuses gradients where the kernels have no pass `backward`.
template <class F>
void check_trains(F backward) {
  if (!backward)
    throw py::type_error("weights of fewer bits have no gradients: train the module they are from");
}

/// Parameters or gradients at the addresses that they had when a layer was made. All of it needs the GIL.
class KeptArrays {
public:
  /// `owned`: whether the arrays are a module's own, which calls `lend` whenever it gives them to somebody.
  explicit KeptArrays(bool owned = false) : owned_(owned) {}
  KeptArrays(KeptArrays&& other) noexcept
      : owned_(other.owned_), arrays_(std::move(other.arrays_)), lent_(other.lent_.load()) {}
  /// Lets go of all arrays: nothing is watched any more.
  void clear() { arrays_.clear(); }

  /// Where the elements of an array of this shape lie, null for None. Only that of gradients is written to.
  template <class T>
  T* keep(const std::string& name, const py::object& array, Extents shape) {
    T* const data = parameter<T>(name.c_str(), array, shape);
    if (data) add(name, array, data);
    return data;
  }

  /// The same of an array of any shape.
  template <class T>
  T* keep(const std::string& name, const py::object& array) {
    T* const data = in_place<T>(name.c_str(), array).mutable_data();
    add(name, array, data);
    return data;
  }

  /// Throws ValueError naming an array whose memory, shape, strides or dtype are no longer what they were.
  void check() const;

  /// Says that somebody has been given the arrays.
  void lend() { lent_.store(true, std::memory_order_relaxed); }

  /// Whether somebody may have written to them since this was last asked: somebody has been given them, or
  /// holds one now. An array that only its module and this layer hold can have been changed by nobody.
  bool may_have_changed();

private:
  struct Kept {
    std::string name;
    py::object array;
    const void* data;
    const PyObject* dtype; // NumPy's own, one for each type
    std::vector<Index> extents, strides;
  };
  void add(const std::string& name, const py::object& array, const void* data);
  bool held_by_others() const;

  const bool owned_;
  std::vector<Kept> arrays_;
  std::atomic<bool> lent_{true};
};

} // namespace rnncore
