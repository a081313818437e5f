"""How spreadsheets read a CSV file: they also split at other characters, and accept other quotes or none."""

import csv
import io
import re

#: Where a line may be split; LibreOffice accepts several at once, and Excel the list separator of the country.
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "comma, semicolon and tab": ",;\t"}
#: A user who chooses ``'`` as the quote removes the guards, so it is not in the list.
QUOTES = {"double": '"', "none": None}
SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
#: Characters that a spreadsheet may not show and drop before it looks for a sign.
UNSEEN = (
    *("\t", "\r", "\n", "\0", "\r\n", "\t\t", "\x1f", "\x1e", "\x1d", "\x1c", "\x0b", "\x0c", "\x01", "\x08", "\x7f"),
    *("\x85", "\x9f", "\u200b", "\u200e", "\u200f", "\u202e", "\u2060", "\u2066", "\ufeff", "\xad", "\u061c"),
)


def cells(data, separators, quote):
    """All cells of a CSV file, as a program reads them that splits at these characters and uses this quote."""
    text = data.decode()
    if len(separators) > 1:  # outside quotes each is a separator; inside quotes they are alike
        text = re.sub(f"[{separators}]", separators[0], text)
    style = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
    csv.field_size_limit(2_000_000)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separators[0], **style)
    return [cell for row in rows for cell in row]


def is_formula(cell):
    """The rule of the CSV injection guides, after characters that a spreadsheet may drop. A plain number is no formula.

    A number before a closing quote or bracket is no formula either: it computes nothing.
    """
    seen = cell.lstrip("".join(UNSEEN) + "\u2400")
    return seen[:1] in SIGNS and re.fullmatch(r"""[+-]?\d+(\.\d+)?[\]}"',]*""", seen) is None


def without_guards(text):
    """The text without a ``'`` at its start or before a sign, for comparing two texts."""
    return re.sub(f"^'|'+(?=[{re.escape(''.join(SIGNS))}])", "", text)
