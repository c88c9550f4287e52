"""The cells of the shelf, by name."""

from __future__ import annotations

from rnncore.cells import CellDefinition, shelf

SHELF: dict[str, CellDefinition] = {
    "slstm": shelf.slstm,
    "slstm_sigmoid": shelf.slstm_sigmoid,
    "sru": shelf.sru,
    "qrnn": shelf.qrnn,
    "lru": shelf.lru,
    "gru_d": shelf.gru_d,
    "li_gru": shelf.li_gru,
    "cornn": shelf.cornn(0.3, 1.2, 0.7),
    "antisymmetric": shelf.antisymmetric(0.2, 0.3),
    "gated_antisymmetric": shelf.gated_antisymmetric(0.2, 0.3),
    "ugrnn": shelf.ugrnn,
    "brc": shelf.brc,
    "nbrc": shelf.nbrc,
    "ltc": shelf.ltc,
    "cfc": shelf.cfc,
    "phased_lstm": shelf.phased_lstm(0.01, 0.4),
}
