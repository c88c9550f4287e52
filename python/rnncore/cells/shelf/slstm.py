"""sLSTM: an LSTM with exponential gates and a normaliser (Beck et al. 2024, section 2.2)."""

from __future__ import annotations

from ..definition import define
from ..symbols import Symbol, exp, maximum, sigmoid, softplus, tanh


@define(gates="zifo", states="hcnm")
def slstm(
    z: Symbol, i: Symbol, f: Symbol, o: Symbol, c: Symbol, n: Symbol, m: Symbol
) -> tuple[Symbol, ...]:
    """sLSTM with an exponential forget gate, eq. 8 to 17.

    m' = max(f + m, i)    i_s = exp(i - m')    f_s = exp(f + m - m')
    c' = f_s c + i_s tanh(z)    n' = f_s n + i_s    h' = sigmoid(o) c' / n'
    """
    m_new = maximum(f + m, i)
    i_s, f_s = exp(i - m_new), exp(f + m - m_new)
    c, n = f_s * c + i_s * tanh(z), f_s * n + i_s
    return sigmoid(o) * c / n, c, n, m_new


@define(gates="zifo", states="hcnm")
def slstm_sigmoid(
    z: Symbol, i: Symbol, f: Symbol, o: Symbol, c: Symbol, n: Symbol, m: Symbol
) -> tuple[Symbol, ...]:
    """The same with f = sigmoid(f), whose logarithm takes the place of f (eq. 12, 15)."""
    log_f = -softplus(-f)
    m_new = maximum(log_f + m, i)
    i_s, f_s = exp(i - m_new), exp(log_f + m - m_new)
    c, n = f_s * c + i_s * tanh(z), f_s * n + i_s
    return sigmoid(o) * c / n, c, n, m_new
