#include "search.hpp"

#include "log_probs.hpp"

namespace rnncore {
namespace {

SearchRules rules_of(const py::object& given, const Array<int64_t>& forced) {
  const auto number = [&](const char* name) { return given.attr(name).cast<Index>(); };
  return {number("eos"),       number("min_length"), number("max_length"),
          number("no_repeat"), forced.shape(1),      forced.data()};
}

BeamLimits limits_of(const py::object& given) {
  const auto number = [&](const char* name) { return given.attr(name).cast<double>(); };
  return {given.attr("width").cast<Index>(), given.attr("n_best").cast<Index>(), number("length_penalty"),
          number("coverage_penalty"), number("prune")};
}

template <class T>
class Searching {
public:
  Searching(DecoderStep<T>& step, Index bos, const SearchRules& rules, const BeamLimits& limits,
            const int64_t* lengths)
      : step_(step), rules_(rules), limits_(limits), lengths_(lengths),
        beam_(step.sources(), bos, rules, limits) {}

  void run() {
    while (beam_.rows()) {
      const Index rows = beam_.rows(), V = step_.vocabulary();
      attention_.emplace_back(rows * step_.source_steps());
      const T* logits = step_.run(rows, beam_.tokens(), beam_.sources(), attention_.back().data());
      log_probs_.resize(rows * V);
      log_softmax(logits, rows, V, log_probs_.data());
      std::vector<Move> moves = beam_.choose(offers());
      for (Move& move : moves)
        if (limits_.coverage_penalty > 0 && beam_.ends(move)) cover(move);
      step_.take(beam_.follow(moves));
      Watch::pause();
    }
  }

  py::list found() const {
    py::list all;
    for (const std::vector<Ended>& of_source : beam_.best()) {
      py::list mine;
      for (const Ended& ended : of_source) mine.append(hypothesis(ended));
      all.append(mine);
    }
    return all;
  }

private:
  /// The likeliest tokens of each row, by the rules.
  std::vector<Move> offers() {
    const Index V = step_.vocabulary(), each = std::min(limits_.width, V);
    std::vector<Move> offers;
    std::vector<int64_t> tokens(each);
    for (Index row = 0; row < beam_.rows(); ++row) {
      T* const log_probs = log_probs_.data() + row * V;
      apply_rules(row, log_probs);
      likeliest(log_probs, V, each, tokens.data());
      for (const int64_t token : tokens)
        offers.push_back({row, token, beam_.log_prob(row) + double(log_probs[token])});
    }
    return offers;
  }

  /// Leaves what may follow. Where that is nothing, or NaN, the hypothesis ends.
  void apply_rules(Index row, T* log_probs) const {
    constexpr T nothing = -std::numeric_limits<T>::infinity();
    const Index V = step_.vocabulary();
    const T end = log_probs[rules_.eos];
    const auto leave = [=](int64_t token, T log_prob) {
      std::fill_n(log_probs, V, nothing);
      log_probs[token] = log_prob;
    };
    if (const int64_t token = beam_.only(row); token >= 0)
      leave(token, log_probs[token]);
    else
      for (const int64_t forbidden : beam_.forbidden(row)) log_probs[forbidden] = nothing;
    if (std::any_of(log_probs, log_probs + V, [=](T p) { return p > nothing; })) return;
    leave(rules_.eos, end > nothing ? end : std::numeric_limits<T>::lowest());
  }

  void cover(Move& move) const {
    const std::vector<const T*> lines = attention(beam_.path(beam_.step(), move.row).rows);
    move.coverage = limits_.coverage_penalty * coverage(lines, lengths_[beam_.sources()[move.row]]);
  }

  /// The weights (S) of each step, by a hypothesis's row at each.
  std::vector<const T*> attention(const std::vector<Index>& rows) const {
    std::vector<const T*> lines;
    for (const Index row : rows)
      lines.push_back(attention_[lines.size()].data() + row * step_.source_steps());
    return lines;
  }

  py::tuple hypothesis(const Ended& ended) const {
    const Path path = beam_.path(ended.step, ended.row);
    const Index length = lengths_[ended.source];
    auto tokens = new_array<int64_t>({ended.step});
    std::copy(path.tokens.begin(), path.tokens.end(), tokens.mutable_data());
    Array<T> weights;
    if (step_.attends()) {
      weights = new_array<T>({ended.step + 1, length});
      T* to = weights.mutable_data();
      for (const T* line : attention(path.rows)) to = std::copy_n(line, length, to);
    }
    return py::make_tuple(tokens, ended.log_prob, ended.score, or_none(weights, step_.attends()));
  }

  DecoderStep<T>& step_;
  const SearchRules rules_;
  const BeamLimits limits_;
  const int64_t* const lengths_;
  Beam beam_;
  std::vector<T> log_probs_;              // (R, V)
  std::vector<std::vector<T>> attention_; // of each step (R, S)
};

} // namespace

template <class T>
py::list search(const py::object& parts, const py::object& given_rules, const py::object& given_limits,
                const py::object& forced_object, const py::object& lengths_object) {
  DecoderStep<T> step(parts);
  const Index sources = step.sources();
  Array<int64_t> forced = new_array<int64_t>({sources, 0});
  if (!forced_object.is_none()) forced = contiguous<int64_t>(forced_object);
  if (forced.ndim() != 2 || forced.shape(0) != sources) throw py::value_error("forced: unexpected shape");
  const auto lengths = of_shape<int64_t>("lengths", lengths_object, {sources});
  Searching<T> searching(step, given_rules.attr("bos").cast<Index>(), rules_of(given_rules, forced),
                         limits_of(given_limits), lengths.data());
  {
    const ReleaseGil release(std::numeric_limits<Index>::max());
    searching.run();
  }
  return searching.found();
}

template py::list search<float>(const py::object&, const py::object&, const py::object&, const py::object&,
                                const py::object&);
template py::list search<double>(const py::object&, const py::object&, const py::object&, const py::object&,
                                 const py::object&);

} // namespace rnncore
