"""How spreadsheets read a CSV file: they split at other characters than commas, and take other quotes or none."""

import csv
import io
import re

#: Where a line may be split; LibreOffice takes several at once, and Excel the list separator of the country.
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "comma, semicolon and tab": ",;\t"}
#: A user who chooses ``'`` as the quote takes the guards away, so that one is not among them.
QUOTES = {"double": '"', "none": None}
SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
#: Characters that a spreadsheet may not show and drop before it looks for a sign.
UNSEEN = (
    *("\t", "\r", "\n", "\0", "\r\n", "\t\t", "\x1f", "\x1e", "\x1d", "\x1c", "\x0b", "\x0c", "\x01", "\x08", "\x7f"),
    *("\x85", "\x9f", "\u200b", "\u200e", "\u200f", "\u202e", "\u2060", "\u2066", "\ufeff", "\xad", "\u061c"),
)


def cells(data, separators, quote):
    """All cells of a CSV file, as a program sees them that splits at these characters and takes this quote."""
    text = data.decode()
    if (
        len(separators) > 1
    ):  # outside of quotes each is a separator; inside of them it makes no difference which one it is
        text = re.sub(f"[{separators}]", separators[0], text)
    style = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
    csv.field_size_limit(2_000_000)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separators[0], **style)
    return [cell for row in rows for cell in row]


def is_formula(cell):
    """The rule of the CSV injection guides, after what a spreadsheet may not see. A plain number is no formula.

    A number before the end of a quote or of a bracket is no formula either: nothing can be computed from it.
    """
    seen = cell.lstrip("".join(UNSEEN) + "\u2400")
    return seen[:1] in SIGNS and re.fullmatch(r"""[+-]?\d+(\.\d+)?[\]}"',]*""", seen) is None


def without_guards(text):
    """The text without a ``'`` at its start or before a sign, so that two texts can be compared."""
    return re.sub(f"^'|'+(?=[{re.escape(''.join(SIGNS))}])", "", text)
