#include "beam.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace rnncore {
namespace {

constexpr double nothing = -std::numeric_limits<double>::infinity();

} // namespace

double BeamLimits::scaled(double log_prob, Index length) const {
  return log_prob / std::pow(double(5 + length) / 6, length_penalty);
}

Beam::Beam(Index sources, Index bos, const SearchRules& rules, const BeamLimits& limits)
    : rules_(rules), limits_(limits), steps_{{{}, std::vector<int64_t>(sources, bos)}}, sources_(sources),
      log_probs_(sources, 0), left_(sources, limits.width), top_(sources * limits.n_best, nothing),
      likeliest_(sources, nothing) {
  std::iota(sources_.begin(), sources_.end(), 0);
}

int64_t Beam::only(Index row) const {
  if (step() < rules_.forced_length) {
    const int64_t token = rules_.forced[sources_[row] * rules_.forced_length + step()];
    if (token >= 0) return token;
  }
  return step() == rules_.max_length ? rules_.eos : -1;
}

std::vector<int64_t> Beam::forbidden(Index row) const {
  std::vector<int64_t> found;
  if (step() < rules_.min_length) found.push_back(rules_.eos);
  if (rules_.no_repeat == 0 || rules_.no_repeat > step()) return found;
  const std::vector<int64_t> said = path(step(), row).tokens;
  const auto begun = said.end() - (rules_.no_repeat - 1); // of the run that would be complete
  for (auto at = said.begin(); at <= said.end() - rules_.no_repeat; ++at)
    if (std::equal(begun, said.end(), at)) found.push_back(at[rules_.no_repeat - 1]);
  return found;
}

std::vector<Move> Beam::choose(std::vector<Move> offers) const {
  std::vector<Move> chosen;
  for (auto begin = offers.begin(); begin != offers.end();) {
    const int64_t source = sources_[begin->row];
    const auto end =
        std::find_if(begin, offers.end(), [&](const Move& m) { return sources_[m.row] != source; });
    const auto last = begin + std::min<Index>(left_[source], end - begin);
    std::partial_sort(begin, last, end, [](const Move& a, const Move& b) {
      return a.log_prob != b.log_prob ? a.log_prob > b.log_prob
                                      : std::pair(a.row, a.token) < std::pair(b.row, b.token);
    });
    const double likeliest = std::max(begin->log_prob, likeliest_[source]);
    std::copy_if(begin, last, std::back_inserter(chosen), [&](const Move& m) {
      return m.log_prob > nothing && m.log_prob >= likeliest - limits_.prune;
    });
    begin = end;
  }
  return chosen;
}

const std::vector<Index>& Beam::follow(const std::vector<Move>& moves) {
  for (const Move& move : moves)
    if (ends(move)) end(move);
  Step next;
  std::vector<int64_t> sources;
  log_probs_.clear();
  for (const Move& move : moves) {
    if (ends(move) || !hopeful(move)) continue;
    next.rows.push_back(move.row);
    next.tokens.push_back(move.token);
    sources.push_back(sources_[move.row]);
    log_probs_.push_back(move.log_prob);
  }
  sources_ = std::move(sources);
  steps_.push_back(std::move(next));
  return steps_.back().rows;
}

void Beam::end(const Move& move) {
  const Index source = sources_[move.row];
  const double score = limits_.scaled(move.log_prob, step() + 1) + move.coverage;
  ended_.push_back({source, step(), move.row, move.log_prob, score});
  double* const top = top_.data() + source * limits_.n_best;
  double lower = score; // what the better scores push down
  for (Index i = 0; i < limits_.n_best; ++i)
    if (lower > top[i]) std::swap(lower, top[i]);
  likeliest_[source] = std::max(likeliest_[source], move.log_prob);
  --left_[source];
}

/// Whether it can still be among the n best.
bool Beam::hopeful(const Move& move) const {
  const Index source = sources_[move.row];
  return left_[source] > 0 &&
         limits_.scaled(move.log_prob, rules_.max_length + 1) > top_[(source + 1) * limits_.n_best - 1];
}

Path Beam::path(Index step, Index row) const {
  Path path{std::vector<Index>(step + 1), std::vector<int64_t>(step)};
  for (path.rows[step] = row; step > 0; --step) {
    path.tokens[step - 1] = steps_[step].tokens[path.rows[step]];
    path.rows[step - 1] = steps_[step].rows[path.rows[step]];
  }
  return path;
}

std::vector<std::vector<Ended>> Beam::best() const {
  std::vector<std::vector<Ended>> found(left_.size());
  for (const Ended& ended : ended_) found[ended.source].push_back(ended);
  for (std::vector<Ended>& mine : found) {
    std::stable_sort(mine.begin(), mine.end(), [](const Ended& a, const Ended& b) {
      return a.score > b.score || (std::isnan(b.score) && !std::isnan(a.score));
    });
    if (Index(mine.size()) > limits_.n_best) mine.erase(mine.begin() + limits_.n_best, mine.end());
  }
  return found;
}

} // namespace rnncore
