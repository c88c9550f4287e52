// A search without Python in between: the steps of a decoder, and what becomes of its hypotheses.
#pragma once

#include "../engine/beam.hpp"
#include "decoder_step.hpp"

namespace rnncore {

/// `parts`: a `seq2seq.compiled.Parts`. `rules`, `limits`: `seq2seq.rules.Rules` and `Limits`. `forced`
/// (B, P): the tokens that each hypothesis begins with, -1 behind the end; or None. `lengths` (B): of the
/// sources. Tokens are within the vocabulary, and this within the table. Returns of each source the n best
/// hypotheses, each (tokens, log_prob, score, attention or None).
template <class T>
py::list search(const py::object& parts, const py::object& rules, const py::object& limits,
                const py::object& forced, const py::object& lengths);

} // namespace rnncore
