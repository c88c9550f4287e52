// Layers that see one row at a time over NumPy arrays. Their parameters are read as they are, not packed.
#pragma once

#include <algorithm>
#include <bit>
#include <tuple>

#include "parameters.hpp"

namespace rnncore {

const char* name_of(ActivationKind kind);
/// What an activation of this name is to the kernels.
Activation activation_of(const std::string& name, double alpha, double beta);

/// Rows to rows of the same width.
template <class T>
class PointwiseLayer {
public:
  virtual ~PointwiseLayer() = default;

  /// The width of its rows, or 0 if any will do.
  virtual Index width() const { return 0; }
  /// Throws where parameters are no longer where they were.
  virtual void check() const {}
  /// x to y, which may be the same, on this thread.
  virtual void run(Index rows, Index width, const T* x, T* y) const = 0;
  /// x, whose last axis are rows, to `out`, or a new array.
  py::object forward(const py::object& x, const py::object& out) const;
};

template <class T>
class ActivationLayer final : public PointwiseLayer<T> {
public:
  ActivationLayer(const std::string& name, double alpha, double beta)
      : activation_(activation_of(name, alpha, beta)) {}

  void run(Index rows, Index width, const T* x, T* y) const override;
  /// dx from the gradient dy of y, which is what `forward` returned.
  Array<T> backward(const py::object& y, const py::object& dy) const;

private:
  const Activation activation_;
};

template <class T>
class SoftmaxLayer final : public PointwiseLayer<T> {
public:
  void run(Index rows, Index width, const T* x, T* y) const override;
};

template <class T>
class NormLayer final : public PointwiseLayer<T> {
public:
  /// weight and bias (width)
  NormLayer(const py::object& weight, const py::object& bias, double epsilon);

  Index width() const override { return norm_.width; }
  void check() const override { parameters_.check(); }
  void run(Index rows, Index width, const T* x, T* y) const override;

private:
  KeptArrays parameters_;
  LayerNorm<T> norm_;
};

/// Rectified units with a slope (count) below zero for each number of a row, or one for all.
template <class T>
class SlopesLayer final : public PointwiseLayer<T> {
public:
  explicit SlopesLayer(const py::object& weight);

  Index width() const override { return count_ == 1 ? 0 : count_; }
  void check() const override { parameters_.check(); }
  void run(Index rows, Index width, const T* x, T* y) const override;

private:
  const Index count_;
  KeptArrays parameters_;
  const T* weight_;
};

/// Rows of a table by their numbers.
template <class T>
class EmbeddingLayer {
public:
  /// weight (count, width) of T, or of whole numbers of 8 bits with a scale (count) for each row, or the
  /// bits of bfloat16.
  EmbeddingLayer(Index count, Index width, const py::object& weight, const py::object& scale)
      : count_(count), width_(width) {
    if (!scale.is_none()) {
      whole_ = parameters_.keep<int8_t>("weight", weight, {count, width});
      scales_ = parameters_.keep<T>("scale", scale, {count});
    } else if (py::isinstance<py::array_t<uint16_t>>(weight)) {
      halves_ = parameters_.keep<uint16_t>("weight", weight, {count, width});
    } else {
      rows_ = parameters_.keep<T>("weight", weight, {count, width});
    }
  }

  Index count() const { return count_; }
  Index width() const { return width_; }
  void check() const { parameters_.check(); }
  bool holds(const int64_t* numbers, Index n) const {
    return std::all_of(numbers, numbers + n, [&](int64_t i) { return 0 <= i && i < count_; });
  }
  void look_up(const int64_t* numbers, Index n, T* y) const {
    for (Index r = 0; r < n; ++r, y += width_) {
      const Index at = numbers[r] * width_;
      if (rows_) {
        std::copy_n(rows_ + at, width_, y);
      } else if (whole_) {
        const T scale = scales_[numbers[r]];
        std::transform(whole_ + at, whole_ + at + width_, y, [=](int8_t q) { return T(q) * scale; });
      } else {
        std::transform(halves_ + at, halves_ + at + width_, y,
                       [](uint16_t bits) { return T(std::bit_cast<float>(uint32_t(bits) << 16)); });
      }
    }
  }

private:
  const Index count_, width_;
  KeptArrays parameters_;
  const T *rows_ = nullptr, *scales_ = nullptr; // the rows: one of these,
  const int8_t* whole_ = nullptr;               // these,
  const uint16_t* halves_ = nullptr;            // or these
};

} // namespace rnncore
