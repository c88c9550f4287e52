// A cell whose time step is a program: what others say of it, checked once, as the kernels take it.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "api.hpp"
#include "memory.hpp"

namespace rnncore {

/// Which parts a gate's sum has, in which phase its recurrent part is added, and whether the parts stay
/// apart, each in a slot of its own.
struct OwnGate {
  bool input, recurrent, apart;
  Index phase;
};

class CellProgram {
public:
  /// One instruction: operation, to, a, b, c, d.
  using Row = std::array<int32_t, 6>;
  /// Of each phase.
  using Rows = std::vector<std::vector<Row>>;
  /// `kept`: slots beside those of gates, to remember numbers in.
  struct Sizes {
    Index units, cells, scalars, vectors, kept;
  };

  /// `sums`: old states are the sums of those of any number of predecessors.
  /// Slots are numbered by gates: one, or two of a gate whose parts are apart; then those that are kept.
  /// Throws std::invalid_argument where something is out of range, read before it is there or after it is
  /// overwritten, or missing.
  CellProgram(const std::vector<OwnGate>& gates, const Sizes& sizes, const Rows& forward,
              const Rows& backward, std::vector<double> constants, bool sums);
  CellProgram(const CellProgram&) = delete;

  const OwnCell& cell() const { return cell_; }
  const Sizes& sizes() const { return sizes_; }

private:
  void lay_out(const std::vector<OwnGate>& gates);
  Code keep(const std::vector<Row>& rows, std::vector<Instruction>& to) const;

  const Sizes sizes_;
  const std::vector<double> constants_;
  OwnCell cell_{};
  std::vector<Index> places_; // of slots, by their numbers
  std::vector<Instruction> forward_[2], backward_[2];
};

/// The kernels of such a cell.
template <class T>
class OwnKernels {
public:
  OwnKernels(std::shared_ptr<const CellProgram> program, const Kernels<T>& kernels)
      : program_(std::move(program)), memory_(std::size_t(kernels.own_bytes)) {
    kernels.make_own(program_->cell(), memory_.template as<void>(), &made_);
  }
  OwnKernels(const OwnKernels&) = delete;
  const CellKernels<T>& kernels() const { return made_; }

private:
  const std::shared_ptr<const CellProgram> program_;
  const Buffer memory_;
  CellKernels<T> made_;
};

} // namespace rnncore
