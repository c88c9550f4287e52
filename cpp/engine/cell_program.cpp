#include "cell_program.hpp"

#include <cmath>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace rnncore {
namespace {

constexpr Index most_windows = 2, most_in_window = 4, most_own_units = 18, most_cells = 7, most_inputs = 64,
                most_kept = 64, most_instructions = 4096, most_constants = 256, activations = 14;

/// Sets of codes, a bit for each: forward, backward, and the two of one predecessor.
enum Where : unsigned {
  forward = 1,
  backward = 2,
  both = 3,
  each_back = 8,
  each = 12,
  backs = 10,
  any = 15
};

struct Form {
  const char* name;
  char to;
  std::string_view from;
  Where where;
};

constexpr Form forms[] = {
#define RNNCORE_FORM(name, to, from, where) {#name, to, from, where},
    RNNCORE_CELL_OPERATIONS(RNNCORE_FORM)
#undef RNNCORE_FORM
};

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("program: " + what); }

void within(const char* name, Index n, Index least, Index most) {
  if (n < least || n > most)
    refuse(std::string(name) + " must be in " + std::to_string(least) + ".." + std::to_string(most) +
           ", got " + std::to_string(n));
}

/// What a store overwrites: the load that must not come after it.
CellOperation read_of(CellOperation store) {
  using Op = CellOperation;
  switch (store) {
  case Op::set_slot:
  case Op::keep_slot:
    return Op::slot;
  case Op::new_state:
    return Op::state;
  case Op::d_old_state:
    return Op::dstate;
  case Op::d_old_h:
    return Op::dh;
  default:
    return store; // never loaded
  }
}

/// Goes over the code of one phase, and remembers what it stores.
class Checker {
public:
  using Op = CellOperation;

  /// `each`: of the code for one predecessor.
  Checker(const CellProgram::Sizes& sizes, Index slots, Index constants, bool backward, bool each = false)
      : sizes_(sizes), slots_(slots), constants_(constants), backward_(backward), each_(each) {}

  void check(const std::vector<CellProgram::Row>& rows) {
    within("the number of instructions", Index(rows.size()), 0, most_instructions);
    written_ = 0;
    overwritten_.clear();
    for (const CellProgram::Row& row : rows) check(row);
  }
  bool stores(Op operation, Index to = 0) const { return stored_.count({operation, to}); }

private:
  void check(const CellProgram::Row& row) {
    within("an operation", row[0], 0, Index(std::size(forms)) - 1);
    const Op operation = Op(row[0]);
    const Form& form = forms[row[0]];
    if (!(form.where >> (2 * each_ + backward_) & 1))
      refuse(std::string(form.name) + " does not belong into this pass");
    const bool loads = form.to == 'r' && form.from.size() <= 1 && form.from != "r";
    if (loads && overwritten_.count({operation, form.from.empty() ? 0 : row[2]}))
      refuse(std::string(form.name) + " is read after it is overwritten");
    for (std::size_t i = 0; i < form.from.size(); ++i) {
      within(form.name, row[2 + i], 0, limit(form.from[i]) - 1);
      if (form.from[i] == 'r' && !(written_ >> row[2 + i] & 1))
        refuse(std::string(form.name) + " reads a register before it is written");
    }
    if (form.to == '-') within(form.name, row[1], 0, 0);
    if (form.to != '-') within(form.name, row[1], 0, limit(form.to) - 1);
    if (form.to == 'r') {
      written_ |= uint64_t(1) << row[1];
    } else {
      stored_.insert({operation, row[1]});
      overwritten_.insert({read_of(operation), row[1]});
    }
  }

  Index limit(char kind) const {
    switch (kind) {
    case 'r':
      return most_registers;
    case 's':
      return slots_;
    case 'c':
      return sizes_.cells;
    case 'u':
      return sizes_.units;
    case 'e':
      return sizes_.scalars;
    case 'v':
      return sizes_.vectors;
    case 'k':
      return constants_;
    default:
      return activations;
    }
  }

  const CellProgram::Sizes sizes_;
  const Index slots_, constants_;
  const bool backward_, each_;
  uint64_t written_ = 0;                       // registers
  std::set<std::pair<Op, Index>> overwritten_; // loads that have become impossible
  std::set<std::pair<Op, Index>> stored_;      // in all phases so far
};

/// Windows over a run of slots, as equal as can be; `gates`: of each slot.
void cut(const std::vector<Index>& gates, Index begin, Window& first, Window& second) {
  const Index count = Index(gates.size()), half = count > most_in_window ? (count + 1) / 2 : count;
  for (Index i = 0; i < count; ++i) {
    Window& window = i < half ? first : second;
    if (window.count == 0) window.begin = begin + i;
    window.gate[window.count++] = gates[i];
  }
}

} // namespace

CellProgram::CellProgram(const std::vector<OwnGate>& gates, const Sizes& sizes, const Rows& forward,
                         const Rows& backward, std::vector<double> constants, bool sums, const Each& each)
    : sizes_(sizes), constants_(std::move(constants)) {
  within("the number of phases", Index(forward.size()), 1, 2);
  if (backward.size() != forward.size()) refuse("forward and backward must have the same phases");
  cell_.phases = Index(forward.size());
  within("units", sizes.units, 0, most_own_units);
  within("cells", sizes.cells, 0, cell_.phases == 2 ? 0 : most_cells);
  within("scalars", sizes.scalars, 0, most_inputs);
  within("vectors", sizes.vectors, 0, most_inputs);
  within("kept", sizes.kept, 0, most_kept);
  within("the number of constants", Index(constants_.size()), 0, most_constants);
  for (const double constant : constants_)
    if (!std::isfinite(constant)) refuse("constants must be finite");
  lay_out(gates, each.gate);
  if (each.gate >= 0 && (!sums || sizes.kept < 2)) refuse("a part of each needs sums, and two slots kept");

  Checker there(sizes, cell_.slots, Index(constants_.size()), false);
  for (const auto& rows : forward) there.check(rows);
  Checker back(sizes, cell_.slots, Index(constants_.size()), true);
  for (Index phase = cell_.phases; phase-- > 0;) back.check(backward[phase]);
  bool whole = there.stores(CellOperation::new_h);
  whole = whole && (cell_.phases == 1 || there.stores(CellOperation::middle));
  for (Index k = 0; k < sizes.cells; ++k)
    whole =
        whole && there.stores(CellOperation::new_state, k) && back.stores(CellOperation::d_old_state, k);
  const Index total = cell_.slots - sizes.kept;
  for (Index slot = 0; slot < total + (each.gate >= 0); ++slot)
    whole =
        whole && (places_[std::size_t(slot)] == own_slot() || back.stores(CellOperation::set_slot, slot));
  if (each.gate >= 0) {
    Checker of_each(sizes, cell_.slots, Index(constants_.size()), false, true);
    of_each.check({each.forward});
    Checker back_each(sizes, cell_.slots, Index(constants_.size()), true, true);
    back_each.check({each.backward});
    whole = whole && of_each.stores(CellOperation::add_slot, total) &&
            back_each.stores(CellOperation::add_slot, total + 1) &&
            back_each.stores(CellOperation::d_offer);
    cell_.each[0] = keep(each.forward, each_[0]);
    cell_.each[1] = keep(each.backward, each_[1]);
  }
  cell_.total = total;
  // Without a product in the first phase nothing else sets the gradient of the old h.
  cell_.direct = back.stores(CellOperation::d_old_h);
  const Recurrence& first = cell_.recurrent[0];
  whole = whole && (cell_.direct || first.window.count > 0);
  if (!whole) refuse("a new state, or a gradient, is never stored");
  cell_.sums = sums;
  cell_.units = sizes.units;
  cell_.cells = sizes.cells;
  cell_.constants = constants_.data();
  for (Index phase = 0; phase < cell_.phases; ++phase) {
    cell_.forward[phase] = keep(forward[phase], forward_[phase]);
    cell_.backward[phase] = keep(backward[phase], backward_[phase]);
  }
}

/// Slots in the order in which the windows of all products are runs: the first phase's recurrent parts,
/// alone and with an input part; input parts alone; the second phase's, with an input part and alone. What
/// predecessors have parts of has no recurrent product here.
void CellProgram::lay_out(const std::vector<OwnGate>& gates, Index each) {
  struct Slot {
    Index number, input = -1, recurrent = -1;
  };
  std::vector<Slot> groups[6];
  if (each >= Index(gates.size())) refuse("there is no such gate for each");
  Index own = -1; // the number of its slot
  Index number = 0;
  for (const OwnGate& gate : gates) {
    within("the phase of a gate", gate.phase, 0, cell_.phases - 1);
    if (gate.apart ? !(gate.input && gate.recurrent) : !(gate.input || gate.recurrent))
      refuse("a gate has an input part, a recurrent part or both, and both if they are apart");
    const Index input = gate.input ? cell_.gates++ : -1,
                recurrent = gate.recurrent ? cell_.recurrent_gates++ : -1;
    if (&gate - gates.data() == each) {
      if (gate.apart || gate.phase || !gate.recurrent)
        refuse("the gate of each must be a sum of the first phase");
      cell_.offer = {0, 1, {recurrent}};
      own = number;
      groups[gate.input ? 2 : 5].push_back({number++, input, -1});
    } else if (gate.apart) {
      groups[2].push_back({number++, input, -1});
      groups[gate.phase ? 4 : 0].push_back({number++, -1, recurrent});
    } else {
      const Index group = gate.recurrent ? gate.input ? gate.phase ? 3 : 1 : gate.phase ? 4 : 0 : 2;
      groups[group].push_back({number++, input, recurrent});
    }
  }
  cell_.slots = number + sizes_.kept;
  within("the number of gates", Index(gates.size()), 1, 2 * most_windows * most_in_window);

  places_.resize(std::size_t(cell_.slots));
  std::vector<Index> inputs, recurrent[2];
  Index place = 0, first_input = 0, first_recurrent[2] = {};
  for (Index group = 0; group < 6; ++group)
    for (const Slot& slot : groups[group]) {
      const Index phase = group > 2;
      if (slot.input >= 0 && inputs.empty()) first_input = place;
      if (slot.input >= 0) inputs.push_back(slot.input);
      if (slot.recurrent >= 0 && recurrent[phase].empty()) first_recurrent[phase] = place;
      if (slot.recurrent >= 0) recurrent[phase].push_back(slot.recurrent);
      places_[std::size_t(slot.number)] = place++;
    }
  for (; place < cell_.slots; ++place) places_[std::size_t(place)] = place;
  if (own >= 0) cell_.offer.begin = places_[std::size_t(own)];
  const Index most = most_windows * most_in_window, in_phase = cell_.phases == 1 ? most : most_in_window;
  within("the number of gates with an input part", Index(inputs.size()), 0, most);
  for (const auto& gates_of : recurrent)
    within("the number of gates with a recurrent part", Index(gates_of.size()), 0, in_phase);
  cut(inputs, first_input, cell_.input[0], cell_.input[1]);
  Recurrence* const products = cell_.recurrent;
  cut(recurrent[0], first_recurrent[0], products[0].window, products[1].window);
  if (cell_.phases == 1) return;
  if (recurrent[1].empty()) refuse("a second phase needs a gate whose recurrent part is added there");
  products[1].phase = 1;
  cut(recurrent[1], first_recurrent[1], products[1].window, products[1].window);
}

/// The instructions, with slots where they lie.
Code CellProgram::keep(const std::vector<Row>& rows, std::vector<Instruction>& to) const {
  for (const Row& row : rows) {
    Instruction i{CellOperation(row[0]), row[1], row[2], row[3], row[4], row[5]};
    if (forms[row[0]].to == 's') i.to = int32_t(places_[std::size_t(i.to)]);
    if (i.operation == CellOperation::slot) i.a = int32_t(places_[std::size_t(i.a)]);
    to.push_back(i);
  }
  return {to.data(), to.data() + to.size()};
}

} // namespace rnncore
