"""Numbers and money as people write them: separators, signs and currencies; exact decimals.

A convention is a decimal sign and a thousands separator, in two characters or one: ".,", ",.", ".".
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

CONVENTIONS = (".", ",", ".,", ",.", ". ", ", ", ".'", ",'")
SIGNS = "$¢£¤¥৳฿៛₠-⃀﷼"  # a class of characters
CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP "
    "BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP "
    "GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR "
    "KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK "
    "MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR "
    "SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH "
    "UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW"
)
_CURRENCY = rf"(?:[A-Z]{{0,3}}[{SIGNS}]|{'|'.join(CODES.split())}|kr\.?|zł|Kč|Ft|Fr\.|лв\.?)"
_MONEY = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<before>{_CURRENCY}) ?)?(?P<inner>[-+]?)"
    rf"(?P<digits>[0-9.,](?:.*[0-9])?)(?: ?(?P<after>{_CURRENCY}))?"
)
_PLAIN = re.compile(r"[-+]?[0-9]+(?:[.,][0-9]+)?")  # the usual case, which is quickly told
_ALIKE = str.maketrans({"\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2019": "'", "\u2212": "-"})


class Money(NamedTuple):
    """A cell taken apart: the text of its number, and what stands beside it, on which side."""

    number: str
    currency: str = ""
    side: str = ""  # "before", "after", or "" without a currency


def split_money(text: str) -> Money | None:
    """Take a number and its currency apart; None for what has not the look of either.

    Examples
    --------
    >>> split_money("-€ 1.299,00"), split_money("on request")
    (Money(number='-1.299,00', currency='€', side='before'), None)
    """
    if _PLAIN.fullmatch(text):
        return Money(text)
    found = _MONEY.fullmatch(text.strip().translate(_ALIKE))
    if not found or (found["sign"] and found["inner"]) or (found["before"] and found["after"]):
        return None
    side = "before" if found["before"] else "after" if found["after"] else ""
    currency = found["before"] or found["after"] or ""
    return Money(found["sign"] + found["inner"] + found["digits"], currency, side)


def parse_number(text: str, convention: str = ".", *, padded: bool = False) -> Decimal | None:
    """Read a number written in a convention, exactly; None for anything else.

    Parameters
    ----------
    text
        A sign, digits and separators; an exponent with its sign ("1e-05"): "1e5" may be a code.
    convention
        One of `CONVENTIONS`.
    padded
        Whether leading zeros ("007") and exponents without a sign are read, too.

    Examples
    --------
    >>> parse_number("1.299,50", ",."), parse_number("1.299,50", ".,"), parse_number("007")
    (Decimal('1299.50'), None, None)
    """
    if not _pattern(convention, padded).fullmatch(text):
        return None
    plain = text.replace(convention[1:], "") if convention[1:] else text
    return Decimal(plain.replace(convention[0], "."))


@lru_cache
def _pattern(convention: str, padded: bool) -> re.Pattern[str]:
    decimal, thousands = re.escape(convention[0]), re.escape(convention[1:])
    whole = "[0-9]+" if padded else "(?:0|[1-9][0-9]*)"
    fraction = f"(?:{decimal}[0-9]+)"
    exponent = f"(?:[eE][-+]{'?' if padded else ''}[0-9]{{1,3}})?"
    forms = f"(?:{whole}{fraction}?|{fraction}){exponent}"
    if thousands:
        forms += f"|[1-9][0-9]{{0,2}}(?:{thousands}[0-9]{{3}})+{fraction}?"
    return re.compile(f"[-+]?(?:{forms})")
