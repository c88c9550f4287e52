// The parts of a call, and the walks that go through them piece by piece.
#pragma once

#include <vector>

#include "schedule.hpp"

namespace rnncore {

/// Waves of a part that are gone through at once.
struct Walk {
  enum Kind { unrecorded, recorded, back } kind;
  Index part, wave, end;
  Index round = 0; // of its way
};

/// The walks of one thread, or team, in rounds with a pause after each.
class Way {
public:
  /// The next walk, through so many nodes; a round has at most `most`, or one walk.
  void add(Walk walk, Index nodes, Index most);
  Index rounds() const { return walks_.empty() ? 0 : walks_.back().round + 1; }
  /// f(walk) for those of a round.
  template <class F>
  void for_each(Index round, F f) const {
    for (const Walk& walk : walks_)
      if (walk.round == round) f(walk);
  }

private:
  std::vector<Walk> walks_;
  Index nodes_ = 0; // of the last round
};

/// Some sequences in one direction, or some trees. `chunk`: chunks end where so many nodes lie before them,
/// or a multiple of it; nothing is cut within one.
struct Part {
  Index direction;
  OwnSchedule schedule;
  Index tape;                // where its gates begin
  std::vector<Index> cuts;   // waves between which it is remembered, piece by piece
  std::vector<Index> pauses; // those before which a call may end: the cuts and others

  Part(Index direction, OwnSchedule schedule);

  /// Cuts it into pieces of at least so many steps.
  void cut(Index steps, Index chunk);
  /// The first wave of what is remembered together with this one.
  Index cut_before(Index wave) const;
  /// Lets a call end wherever it has gone through `most` nodes.
  void plan_pauses(Index most, Index chunk);

  /// Adds the walks through it, its number being `number`. Where there are replays, the last piece is
  /// remembered at once: with it the backward pass begins.
  void go(Index number, bool records, bool replays, Index most, Way& way) const;
  /// And those back: the pieces of the tape from the last to the first, each but the last computed again
  /// before.
  void go_back(Index number, Index most, Way& way) const;
};

} // namespace rnncore
