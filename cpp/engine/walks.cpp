#include "walks.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace rnncore {

Part::Part(Index direction, OwnSchedule schedule)
    : direction(direction), schedule(std::move(schedule)), tape(0), cuts{0, this->schedule.view().waves} {}

Index Part::cut_before(Index wave) const {
  return *std::prev(std::upper_bound(cuts.begin() + 1, cuts.end() - 1, wave));
}

void Way::add(Walk walk, Index nodes, Index most) {
  const bool next = nodes_ > 0 && nodes_ + nodes > most;
  walk.round = walks_.empty() ? 0 : walks_.back().round + next;
  nodes_ = next ? nodes : nodes_ + nodes;
  walks_.push_back(walk);
}

void Part::cut(Index steps, Index chunk) {
  const Schedule s = schedule.view();
  cuts = {0};
  for (Index w = 1; w < s.waves; ++w)
    if (w - cuts.back() >= steps && s.begin[w] / chunk != s.begin[w - 1] / chunk) cuts.push_back(w);
  cuts.push_back(s.waves);
}

/// Pauses come where chunks begin.
void Part::plan_pauses(Index most, Index chunk) {
  const Schedule s = schedule.view();
  pauses = cuts;
  if (s.nodes <= most && cuts.size() == 2) return;
  pauses = {0};
  for (Index w = 1; w < s.waves; ++w) {
    if (s.begin[w] / chunk == s.begin[w - 1] / chunk) continue;
    const Index last = (s.begin[w] / chunk + 1) * chunk - 1; // where a wave of this chunk may begin
    const Index next = *std::upper_bound(s.begin + w, s.begin + s.waves, last);
    const bool full = next - s.begin[pauses.back()] > most;
    if (full || cut_before(w) == w) pauses.push_back(w);
  }
  pauses.push_back(s.waves);
}

void Part::go(Index number, bool records, bool replays, Index most, Way& way) const {
  const Index* const begin = schedule.view().begin;
  const Index from = replays ? cuts[cuts.size() - 2] : 0;
  for (std::size_t i = 1; i < pauses.size(); ++i) {
    const Index wave = pauses[i - 1], end = pauses[i];
    const auto kind = records && wave >= from ? Walk::recorded : Walk::unrecorded;
    way.add({kind, number, wave, end}, begin[end] - begin[wave], most);
  }
}

void Part::go_back(Index number, Index most, Way& way) const {
  const Index* const begin = schedule.view().begin;
  const auto add = [&](Walk::Kind kind, std::vector<Index>::const_iterator at) {
    way.add({kind, number, at[0], at[1]}, begin[at[1]] - begin[at[0]], most);
  };
  for (std::size_t cut = cuts.size() - 1; cut > 0; --cut) {
    const auto first = std::find(pauses.begin(), pauses.end(), cuts[cut - 1]);
    const auto last = std::find(first + 1, pauses.end(), cuts[cut]);
    for (auto at = first; cut + 1 < cuts.size() && at < last; ++at) add(Walk::recorded, at);
    for (auto at = last; at > first; --at) add(Walk::back, at - 1);
  }
}

} // namespace rnncore
