// Steps of a decoder for the hypotheses of a search: rows that are re-ordered, dropped and repeated between
// them. The weights are those of the moment when it was made.
//
//   x = [embedding(token); context; joined]        joined: what the step before made, or the attended
//   context h = layers(x, h)      made = merge([attended context; h]), without attention h      logits =
//   head(made)
#pragma once

#include "attention.hpp"
#include "stages.hpp"

namespace rnncore {

/// Layers without a state, one after the other, for any number of rows.
template <class T>
class RowStages {
public:
  /// `layers` and `width`: see `stages_of`.
  RowStages(const py::list& layers, Index width)
      : stages_(stages_of<T>(layers, 1, width, nullptr)), outputs_(stages_.size()),
        width_(stages_.empty() ? width : stages_.back()->width()) {}

  explicit operator bool() const { return !stages_.empty(); }
  /// Of what comes out.
  Index width() const { return width_; }
  void check() const {
    for (const auto& stage : stages_) stage->check();
  }
  /// What becomes of these rows, or of numbers of rows of a table: stays until the next run.
  const T* run(Index rows, const T* x, const int64_t* numbers = nullptr);

private:
  StageList<T> stages_;
  std::vector<Buffer> outputs_;
  const Index width_;
};

/// Numbers that each row has of its own.
template <class T>
class OwnRows {
public:
  /// At first those of `from` (R, width).
  OwnRows(Index width, Index rows, const T* from);
  T* data() const { return now_.template as<T>(); }
  Index width() const { return width_; }
  /// Row r becomes what row `rows[r]` was.
  void take(const std::vector<Index>& rows);

private:
  const Index width_;
  Buffer now_, next_;
};

template <class T>
class DecoderStep {
public:
  /// `parts`: a `seq2seq.compiled.Parts`.
  explicit DecoderStep(const py::object& parts);

  Index vocabulary() const { return head_.width(); }
  Index sources() const { return sources_; }
  bool attends() const { return memory_ != nullptr; }
  /// Steps of the longest source that is attended to.
  Index source_steps() const { return memory_ ? memory_->steps() : 0; }

  /// Logits (R, V) after these tokens (R) about these sources (R), which stay until the next step; the
  /// attention's weights (R, S).
  const T* run(Index rows, const int64_t* tokens, const int64_t* sources, T* weights);
  /// Row r goes on from where row `rows[r]` is.
  void take(const std::vector<Index>& rows);

private:
  struct Recurrent {
    Layer<T>& layer;
    const Pinned<T> weights;
    const MaskArrays<T> masks;
    OwnRows<T> h, c;
    Buffer y;

    const T* run(Index rows, const T* x);
  };

  std::vector<Recurrent> layers_of(const py::object& parts) const;
  OwnRows<T> feed_of(const py::object& parts) const;
  Index joined() const { return before_ ? memory_->value_size() : feeds_ ? merge_.width() : 0; }
  Index input() const { return layers_[0].layer.shape().input; }
  void check() const;
  /// (R, I), with room for what is joined.
  T* inputs(Index rows, const int64_t* tokens, const int64_t* sources);
  /// (R, M + P), with room for an h beside the context that h attends to.
  T* attend(Index rows, const int64_t* sources, const T* h, T* weights);

  const py::object parts_; // kept alive
  const Memory<T>* const memory_;
  const bool before_, feeds_;
  const Index sources_;
  std::vector<Recurrent> layers_;
  const Index hidden_; // P, the width of h
  RowStages<T> embedding_, query_, centre_, merge_, head_;
  const Array<T> context_; // (B, C)
  OwnRows<T> feed_;
  AttentionForward<T> call_{};
  Buffer x_, contexts_, centres_;
};

} // namespace rnncore
