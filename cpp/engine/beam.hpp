// The hypotheses of a beam search: what each may say next, which of them go on, and which have ended.
#pragma once

#include <vector>

#include "api.hpp"

namespace rnncore {

/// What a hypothesis may be.
struct SearchRules {
  Index eos, min_length, max_length, no_repeat;
  Index forced_length;   // P
  const int64_t* forced; // (sources, P)  what each begins with, -1 behind its end
};

/// How wide a beam is, and what decides between its hypotheses.
struct BeamLimits {
  Index width, n_best;
  double length_penalty, coverage_penalty, prune;

  /// log P(Y | X) / lp(Y), the end symbol counted in the length.
  double scaled(double log_prob, Index length) const;
};

/// A hypothesis that runs, and a token that may follow.
struct Move {
  Index row;
  int64_t token;
  double log_prob;     // of the whole hypothesis
  double coverage = 0; // cp(X; Y), if it ends
};

/// One that has ended: `row` of those that ran at `step`, and the end symbol.
struct Ended {
  Index source, step, row;
  double log_prob, score;
};

/// How a hypothesis came about: its row at each step, the first and this one among them, and what it says.
struct Path {
  std::vector<Index> rows;
  std::vector<int64_t> tokens;
};

/// Rows of one source are neighbours, in the order of the sources.
class Beam {
public:
  Beam(Index sources, Index bos, const SearchRules& rules, const BeamLimits& limits);

  Index rows() const { return Index(sources_.size()); }
  /// The steps that have been taken, as many as a hypothesis has tokens.
  Index step() const { return Index(steps_.size()) - 1; }
  /// (rows)  what each says last, and about which source
  const int64_t* tokens() const { return steps_.back().tokens.data(); }
  const int64_t* sources() const { return sources_.data(); }
  double log_prob(Index row) const { return log_probs_[row]; }
  bool ends(const Move& move) const { return move.token == rules_.eos; }

  /// The only token that may follow, or -1.
  int64_t only(Index row) const;
  /// Where there are several, those that may not.
  std::vector<int64_t> forbidden(Index row) const;

  /// The moves that go on, of each source the likeliest first; `offers`: in order of rows.
  std::vector<Move> choose(std::vector<Move> offers) const;
  /// Goes on with these: returns which row each of those that run now was before.
  const std::vector<Index>& follow(const std::vector<Move>& moves);

  Path path(Index step, Index row) const;
  /// Of each source those that have ended, the best first.
  std::vector<std::vector<Ended>> best() const;

private:
  void end(const Move& move);
  bool hopeful(const Move& move) const;

  struct Step {
    std::vector<Index> rows; // of the step before
    std::vector<int64_t> tokens;
  };

  const SearchRules rules_;
  const BeamLimits limits_;
  std::vector<Step> steps_;
  std::vector<int64_t> sources_;
  std::vector<double> log_probs_;
  std::vector<Ended> ended_;
  // Of each source: the places that are left in its beam; of what has ended the best scores, n_best of
  // them, and the highest log-probability.
  std::vector<Index> left_;
  std::vector<double> top_, likeliest_;
};

} // namespace rnncore
