r"""The rules that bring an answer to one way of writing it: one table, in the order they apply.

Each `Rule` carries an example and what becomes of it; ``tests/unit/grading/test_rules.py`` checks
every row. The rules change the notation only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from rsp_rl.grading.rewriting import (
    BRACKETED,
    ROUND_ROOT,
    TURNED,
    between,
    cut_decimal,
    degrees_and_minutes,
    one_sign,
    open_brackets,
    recurring,
    recurring_decimal,
    round_root,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewriting: ``pattern`` becomes ``replacement`` wherever one of ``needles`` occurs.

    Attributes:
        name: What the rule is about.
        needles: Substrings without which the pattern cannot match (empty: always try).
        pattern: A regular expression that runs in linear time.
        replacement: As for `re.sub`.
        example: A text to which the rule applies.
        expected: What this rule alone makes of it.
    """

    name: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]
    example: str
    expected: str


_SMALL_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega"
)
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "﹣": "-", "－": "-", "‐": "-", "‑": "-",
    "＋": "+", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "，": ",", "、": ",", "；": ";", "：": ":", "（": "(", "）": ")", "［": "[", "］": "]",
    "｛": "{", "｝": "}", "＝": "=", "．": ".", "。": ".", "％": "%",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\neq ", "≈": r"\approx ",
    "∞": r"\infty ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "°": r"^\circ ",
    "º": r"^\circ ", "˚": r"^\circ ", "¢": r"\text{ cents}",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "′": "'", "’": "'", "‘": "'", "″": "''", "“": '"', "”": '"',
    "«": '"', "»": '"', "„": '"', "‚": "'", "「": '"', "」": '"', "´": "'", "′′": "''",
    "℃": r"^\circ ", "℉": r"^\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "∣": "|", "‖": "|",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∠": r"\angle ",
    "△": r"\triangle ", "∂": r"\partial ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "∥": r"\parallel ", "⊥": r"\perp ",
    "≡": r"\equiv ", "∉": r"\notin ", "→": r"\to ", "∧": r"\land ", "∨": r"\lor ",
    "∖": r"\setminus ", "∘": r"\circ ", "∀": r"\forall ", "≃": r"\approx ", "≅": r"\approx ",
    "≦": r"\le ", "≧": r"\ge ", "∗": "*", "ℂ": r"\mathbb{C}", "∆": r"\Delta ", "µ": r"\mu ",
    "Ω": r"\Omega ",
}  # fmt: skip
_UNICODE |= {
    char: rf"\{name} "
    for chars, names in (
        ("αβγδεζηθικλμνξπρστυφχψω", _SMALL_GREEK),
        ("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"),
        ("ϕϵϑ", "phi epsilon theta"),
    )
    for char, name in zip(chars, names.split(), strict=True)
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺⁽⁾ⁿⁱˣʸᵃᵇᵏᵐᵗ", "0123456789-+()nixyabkmt")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₋₊₍₎ₙᵢⱼₖₘₓₐ", "0123456789-+()nijkmxa")
_UNICODE_PATTERN = re.compile("|".join(map(re.escape, _UNICODE)))

_MONTHS = {
    name[:3].lower(): name
    for name in (
        *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
        *("October", "November", "December"),
    )
}
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" if name[3:] else name for name in _MONTHS.values())
_WORDS_OF_BASE = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MAGNITUDE = "|".join(_MAGNITUDES)
_FUNCTIONS = (
    "arcsin|arccos|arctan|arccot|arcsec|arccsc|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|"
    "lcm|gcd|det|arctg|arcctg|tg|ctg|cosec"
)
_PLAIN_FUNCTIONS = "(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp"
_JOINER = r"(?:,?\s*\b(?:and|or)\b|[,;]|\\?&)"
_COUNT = r"\d[\d.,/]*\s+[a-zA-Z]{2,20}(?:\s[a-zA-Z]{1,20}){0,3}"
_ARGUMENT = r"(\{[^{}]*\}|[0-9]|[a-zA-Z]|\\[a-zA-Z]+)"


def _rule(
    name: str,
    needles: str,
    pattern: str,
    replacement: str | Callable[[re.Match[str]], str],
    example: str,
    expected: str,
    flags: int = 0,
) -> Rule:
    return Rule(
        name, tuple(needles.split()), re.compile(pattern, flags), replacement, example, expected
    )


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else "{" + argument + "}"


_SHORT_FRACTION = re.compile(r"\\(frac|binom)\s*" + _ARGUMENT + r"\s*" + _ARGUMENT)


def _long_fraction(match: re.Match[str]) -> str:
    """A fraction with both of its braces, and those within it."""
    top, bottom = (_SHORT_FRACTION.sub(_long_fraction, _braced(match[i])) for i in (2, 3))
    return rf"\{match[1]}{top}{bottom}"


_BASE = r"\(?\s*(?:base[\s~-]*)?(" + "|".join(_WORDS_OF_BASE) + r"|\d{1,2})\s*\)?"
_DEGREES = r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z]))"
_ANGLE = r"\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\}"
_WORD = r"\\(?:text|mathrm)\s*\{[^{}]*\}"
_TEXT = r"\\(?:text|mathrm|textrm|textbf)\s*\{\s*"

_LIMIT = r"-?(?:\d+(?:\.\d+)?)"
_BOUND = (
    rf"(?:([a-zA-Z])\s*([<>]|\\[lg]e(?![a-zA-Z]))\s*({_LIMIT})"
    rf"|({_LIMIT})\s*([<>]|\\[lg]e(?![a-zA-Z]))\s*([a-zA-Z]))\s*"
)
_BASE_BELOW = (
    rf"(?<=[\dA-F)}}])\s*_\s*(?:{_TEXT}{_BASE}\s*\}}"
    rf"|\{{\s*(?:{_TEXT}(?:{_BASE}\s*\}}|base\s*\}}\s*(\d+))|{_BASE})\s*\}}"
    rf"|({'|'.join(_WORDS_OF_BASE)})(?![a-zA-Z]))"
)


def _base(match: re.Match[str]) -> str:
    base = next(filter(None, match.groups())).lower()
    return "_{" + _WORDS_OF_BASE.get(base, base) + "}"


_SPACE = r"(?:[\s~]|\\[,;:! ])*"
_MINUTE = (
    r"(?:'(?!')|\^\s*\{?\s*(?:\\prime|')\s*\}?(?!\s*(?:\\prime|'))"
    r"|\\(?:text|mathrm)\s*\{\s*(?:'|min(?:ute)?s?)\s*\}|min(?:ute)?s?\b)"
)
_SECOND = (
    r"(?:''|\"|\^\s*\{?\s*(?:\\prime\s*\\prime|'')\s*\}?"
    r"|\\(?:text|mathrm)\s*\{\s*(?:''|sec(?:ond)?s?)\s*\}|sec(?:ond)?s?\b)"
)

RULES: tuple[Rule, ...] = (
    _rule(  # first, so that no other rule meets thousands of them
        "blanks in a row",
        "",
        r"\s{2,}",
        lambda m: "\n" if "\n" in m.group() else " ",
        "a  \n b",
        "a\nb",
    ),
    _rule("dot above", "\u0307", "(\\d)\u0307", r"\\dot{\1}", "0.3\u0307", r"0.\dot{3}"),
    _rule(
        "dot set over",
        "overset {\\dot",
        r"\\overset\s*\{\s*(?:\.|\\cdot)\s*\}\s*\{?(\d)\}?|\{\s*\\dot\s*\{?(\d)\}?\s*\}",
        lambda m: rf"\dot{{{m[1] or m[2]}}}",
        r"0.\overset{.}{3}",
        r"0.\dot{3}",
    ),
    _rule(
        "bar above",
        "\u0305 \u0304",
        "(?:\\d[\u0305\u0304])+",
        lambda m: r"\overline{" + re.sub(r"\D", "", m.group()) + "}",
        "0.1\u03058\u0305",
        r"0.\overline{18}",
    ),
    _rule(
        "unicode root",
        "√",
        r"√\s*(?:(\d+(?:\.\d+)?|[a-zA-Z])|\(([^()]*)\))",
        lambda m: r"\sqrt{" + (m[1] or m[2] or "") + "}",
        "√130",
        r"\sqrt{130}",
    ),
    _rule(
        "fractions in one character",
        "",
        "[¼½¾⅐-⅞]",
        lambda m: (
            r"\frac{" + "}{".join(unicodedata.normalize("NFKC", m.group()).split("\u2044")) + "}"
        ),
        "2⅞",
        r"2\frac{7}{8}",
    ),
    _rule(
        "unicode symbols",
        "",
        _UNICODE_PATTERN.pattern,
        lambda m: _UNICODE[m.group()],
        "−3√2",
        r"-3\sqrt 2",
    ),
    _rule(
        "square metres",
        "² ³",
        r"(?<=\d)\s*([ckdm]?m)([²³])",
        lambda m: rf"\text{{ {m[1]}}}^{2 if m[2] == '²' else 3}",
        "5m²",
        r"5\text{ m}^2",
    ),
    _rule(
        "unicode powers",
        "",
        "[" + "".join(map(chr, _SUPERSCRIPTS)) + "]+",
        lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}",
        "x²",
        "x^{2}",
    ),
    _rule(
        "unicode indices",
        "",
        "[" + "".join(map(chr, _SUBSCRIPTS)) + "]+",
        lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}",
        "52₈",
        "52_{8}",
    ),
    _rule(
        "degrees as a letter",
        "o",
        r"(?<=\d)\s*\^\s*(?:o(?![a-zA-Z])|\{\s*o\s*\}|\{?\\(?:text|mathrm)\s*\{\s*o\s*\}\}?)",
        r"^\\circ ",
        "45^{o}",
        r"45^\circ ",
    ),
    _rule(
        "numbers of siunitx",
        "\\num \\SI \\qty \\ang",
        r"\\(?:num\s*\{([^{}]*)\}|(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}|ang\s*\{([^{}]*)\})",
        lambda m: (
            rf"{m[4]}^\circ "
            if m[4]
            else (m[1] or m[2] or "") + (rf"\text{{ {m[3].strip(chr(92))}}}" if m[3] else "")
        ),
        r"\SI{5}{\meter}",
        r"5\text{ meter}",
    ),
    _rule(
        "degrees, minutes, seconds",
        "circ degree °",
        r"(\d{1,6})"
        + _SPACE
        + r"(?:"
        + _DEGREES
        + r"|\\text\s*\{\s*degrees?\s*\}|\bdegrees?\b)"
        + _SPACE
        + r"(\d{1,2}(?:\.\d{1,9})?)"
        + _SPACE
        + _MINUTE
        + r"(?:"
        + _SPACE
        + r"(\d{1,2}(?:\.\d{1,9})?)"
        + _SPACE
        + _SECOND
        + ")?",
        degrees_and_minutes,
        r"30^\circ 15'",
        r"\frac{121}{4}^\circ ",
    ),
    _rule("quotation marks of TeX", "``", r"``([^`]*?)''", r"\1", "``63''", "63"),
    _rule(
        "quotation marks as macros",
        "quot \\lq \\rq",
        r"\\(?:textquotesingle|textquotedbl|textquote(?:dbl)?(?:left|right)|[lr]q)(?![a-zA-Z])\s?",
        "",
        r"\lq 63\rq",
        "63",
    ),
    _rule("quotation marks", '"', r'\\?"', "", 'is "east"', "is east"),
    _rule("code marks", "`", "`+", "", "`63`", "63"),
    _rule("quoted as a whole", "'", r"^\s*'(.+)'[\s.,;]*$", r"\1", "'y''.", "y'", re.DOTALL),
    _rule(
        "quoted items",
        "'",
        r"(?<![\w)}\]'])'(?=[\w\\$(\[{+.-])([^']*)'(?![\w'])",
        r"\1",
        r"\{'a', 'b'\}",
        r"\{a, b\}",
    ),
    _rule(
        "markup",
        "</",
        r"</?(?:b|i|u|em|strong|code|tt|pre|p|span|mark|answer|math)(?:\s[^<>]{0,80})?>",
        "",
        "<b>63</b>",
        "63",
    ),
    _rule("verbatim", "verb", r"\\verb\*?([^\sa-zA-Z*])(.{0,200}?)\1", r"\2", r"\verb|63|", "63"),
    _rule(
        "italics in Markdown",
        "* _",
        r"^\s*([*_]{1,3})(?=[^\s*_])([^*_]*)\1[\s.]*$",
        r"\2",
        "*63*",
        "63",
    ),
    _rule(
        "box named",
        "box",
        r"\(\s*\\(?:boxed|fbox)\s*(?:\{\s*\})?\s*\)",
        "",
        r"12 (\boxed)",
        "12 ",
    ),
    _rule("box inside the answer", "box", r"\\?\b(?:boxed|fbox)\s*(?=\{)", "", r"\boxed{5}", "{5}"),
    _rule(
        "doubled backslash",
        "\\\\",
        r"(?<!\\)\\\\(?=(?:frac|dfrac|sqrt|pi|text|left|right|cup|infty)(?![a-zA-Z]))",
        r"\\",
        r"\\frac{1}{2}",
        r"\frac{1}{2}",
    ),
    _rule(
        "thousands with thin space",
        "\\ {",
        r"(?<=\d)(?<!\d{4})(?:\\[!,:;]|\s*\{\s*,\s*\}(?:\\[!, ])?|,\\[! ])\s*(?=\d{3}(?!\d))",
        "",
        r"10,\!080",
        "10080",
    ),
    _rule(
        "decimal comma in braces",
        "{",
        r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d{1,2}(?!\d)|\d{4})",
        ".",
        "2{,}5",
        "2.5",
    ),
    _rule(
        "equations side by side",
        "quad",
        r"(?:\\q?quad\s*)+(?=[a-zA-Z](?:_\{?\w{1,9}\}?)?(?:\([a-zA-Z]\))?\s*=)",
        ", ",
        r"y=x\quad y=-x",
        "y=x, y=-x",
    ),
    _rule(
        "spacing macros",
        "\\ ~",
        r"(?<!\\)\\[!,;:> ]|~"
        r"|\\(?:q?quad|enspace|thinspace|displaystyle|textstyle|(?:no)?limits"
        r"|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge)(?![a-zA-Z])"
        r"|\\[hv]space\*?\{[^{}]*\}|\\newline(?![a-zA-Z])|\\phantom\{[^{}]*\}|\\(?:no)?break(?![a-zA-Z])",
        " ",
        r"5\,\quad x",
        "5   x",
    ),
    _rule(
        "equation environments",
        "\\begin",
        r"\\(?:begin|end)\s*\{(?:equation|displaymath|math|multline|center)\*?\}",
        " ",
        r"\begin{equation}5\end{equation}",
        " 5 ",
    ),
    _rule("maths delimiters", "\\", r"(?<!\\)\\[()\[\]]", " ", r"\(5\)", " 5 "),
    _rule(
        "dollars as currency",
        "\\$",
        r"\\\$|\\text(?:dollar|sterling)(?![a-zA-Z])",
        "",
        r"\$18.90",
        "18.90",
    ),
    _rule(
        "currency before the amount",
        "US EUR GBP INR Rs CNY RMB JPY CAD AUD",
        r"^\s*(?:\\(?:text|mathrm)\s*\{\s*)?"
        r"(?:US(?:D|(?=\s*\$))|EUR|GBP|INR|Rs\.?|CNY|RMB|JPY|CAD|AUD)\s*\}?\s*(?=[-$\d.])",
        "",
        r"\text{Rs. }500",
        "500",
    ),
    _rule("dollars as delimiters", "$", r"\$+", " ", "$48$, $384$", " 48 ,  384 "),
    _rule("other currencies", "", r"[€£¥₹]|\\(?:pounds|euro|yen)(?![a-zA-Z])", "", "€5", "5"),
    _rule(
        "left and right",
        "\\left \\right \\middle",
        r"\\(?:left|right|middle)\s*(?![a-zA-Z])\.?",
        "",
        r"\left(1,2\right]",
        "(1,2]",
    ),
    _rule(
        "left and right before a macro",
        "\\left \\right \\middle",
        r"\\(?:left|right|middle)\s*(?=\\[{}|a-zA-Z])",
        "",
        r"\left\{1\right\}",
        r"\{1\}",
    ),
    _rule(
        "root of a bracket",
        "sqrt cbrt",
        ROUND_ROOT.pattern,
        round_root,
        r"6\sqrt(2+sqrt(3))",
        r"6\sqrt{2+\sqrt{3}}",
    ),
    _rule(
        "fraction of brackets",
        "frac",
        r"\\[dtc]?frac\s*" + BRACKETED + r"\s*" + BRACKETED,
        r"\\frac{\1}{\2}",
        r"\frac(1)(2)",
        r"\frac{1}{2}",
    ),
    _rule(
        "sizes of brackets", "\\b \\B", r"\\[bB]igg?[lrm]?(?![a-zA-Z])", "", r"\bigl(1\bigr)", "(1)"
    ),
    _rule(
        "braces as macros",
        "brace",
        r"\\([lr])brace(?![a-zA-Z])",
        lambda m: r"\{" if m[1] == "l" else r"\}",
        r"\lbrace 1\rbrace",
        r"\{ 1\}",
    ),
    _rule(
        "brackets as macros",
        "\\l \\r",
        r"\\([lr])(?:brack|angle|paren)(?![a-zA-Z])",
        lambda m: {"b": "[]", "a": "()", "p": "()"}[m.group()[2]]["lr".index(m[1])],
        r"\langle 1,2\rangle",
        "( 1,2)",
    ),
    _rule(
        "bars",
        "vert \\mid \\|",
        r"\\(?:[lr]?[vV]ert|mid)(?![a-zA-Z])|\\\|",
        "|",
        r"\lvert x\rvert",
        "| x|",
    ),
    _rule(
        "arrays in brackets",
        "\\begin",
        r"[\[(]\s*\\begin\s*\{array\}\s*\{[^{}]*\}(.*?)\\end\s*\{array\}\s*[\])]",
        r"\\begin{pmatrix}\1\\end{pmatrix}",
        r"[\begin{array}{c}1\\2\end{array}]",
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        re.DOTALL,
    ),
    _rule(
        "matrices in brackets",
        "bmatrix",
        r"\\(begin|end)\s*\{bmatrix\}",
        r"\\\1{pmatrix}",
        r"\begin{bmatrix}1\end{bmatrix}",
        r"\begin{pmatrix}1\end{pmatrix}",
    ),
    _rule(
        "fractions",
        "frac",
        r"\\(?:[dtcsx]|nice)frac(?![a-zA-Z])",
        r"\\frac",
        r"\dfrac{1}{2}",
        r"\frac{1}{2}",
    ),
    _rule(
        "binomials",
        "binom",
        r"\\[dt]binom(?![a-zA-Z])",
        r"\\binom",
        r"\dbinom{4}{2}",
        r"\binom{4}{2}",
    ),
    _rule(
        "signs in words",
        "minus negative",
        r"^\s*(?:\\text\s*\{\s*)?(?:minus|negative)(?![a-zA-Z])\s*\}?\s*(?=[\d.\\$]|inf)",
        "-",
        r"\text{negative } 5",
        "-5",
        re.IGNORECASE,
    ),
    _rule(
        "both signs in words",
        "plus",
        r"(?:\\text\s*\{\s*)?\bplus or minus\b\s*\}?",
        r"\\pm ",
        "3 plus or minus 2",
        r"3 \pm 2",
    ),
    _rule(
        "days of a month",
        "",
        r"\b(\d{1,2})(?:st|nd|rd|th)?\s(?:of )?(" + _MONTH + r")\b|"
        r"\b(" + _MONTH + r")\.?\s(\d{1,2})(?:st|nd|rd|th)?\b",
        lambda m: f"{_MONTHS[(m[2] or m[3])[:3].lower()]} {m[1] or m[4]}",
        "5th of Jan",
        "January 5",
        re.IGNORECASE,
    ),
    _rule(
        "ordinal numbers",
        "st nd rd th",
        r"^(\s*\d+)\s*(?:(?:\^\s*)?\\(?:text(?:rm|superscript)?|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}"
        r"|\^\s*\{\s*(?:\\(?:text(?:rm)?|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th))\s*\}"
        r"|(?:st|nd|rd|th)(?![a-zA-Z]))",
        r"\1",
        r"5^{\text{th}} day",
        "5 day",
    ),
    _rule(
        "decimal parts in words",
        "enth undredth ousandth",
        r"(?<=\d)\s*(?:\\text\s*\{\s*(ten|hundred|thousand)ths?\s*\}|(ten|hundred|thousand)ths?)\s*$",
        lambda m: (
            r"\times 10^{-" + str(("ten", "hundred", "thousand").index(m[1] or m[2]) + 1) + "}"
        ),
        r"7 \text{ hundredths}",
        r"7\times 10^{-2}",
    ),
    _rule(
        "powers and factorials in words",
        "squared cubed factorial",
        r"(\d|\)|(?<![a-zA-Z])[a-zA-Z])\s*(?:\\text\s*\{\s*(squared|cubed|factorial)\s*\}"
        r"|\b(squared|cubed|factorial))\s*$",
        lambda m: m[1] + {"s": "^2", "c": "^3", "f": "!"}[(m[2] or m[3])[0]],
        r"5 \text{ squared}",
        "5^2",
    ),
    _rule(
        "so many out of so many",
        "of in over",
        r"^\s*(\d+)\s*(?:\\text\s*\{\s*(?:out of|in|over)\s*\}|(?:out of|in|over)\s)\s*(\d+)\s*$",
        r"\\frac{\1}{\2}",
        r"1 \text{ out of } 4",
        r"\frac{1}{4}",
    ),
    _rule(
        "said of a letter",
        "is equals",
        r"^\s*([a-zA-Z])\s+"
        r"(?:\\text\s*\{\s*(?:is(?: equal to)?|equals)\s*\}|(?:is(?: equal to)?|equals)\s)"
        r"(?=\s*[-\d\\$(])",
        r"\1=",
        r"x \text{ is } 5",
        "x= 5",
    ),
    _rule("letter for times", "x", r"(?<=\d)\s+x\s+(?=\d)", r"\\times ", "3 x 4", r"3\times 4"),
    _rule(
        "functions of a program",
        "abs( floor( ceil(",
        r"\\?\b(?:abs|floor|ceil)\(([^()]{0,200})\)",
        lambda m: (
            {"a": "|%s|", "f": r"\lfloor %s\rfloor", "c": r"\lceil %s\rceil"}[
                m.group().lstrip("\\")[0]
            ]
            % m[1]
        ),
        "abs(x)",
        "|x|",
    ),
    _rule(
        "bounds of an absolute value",
        "|",
        r"^\s*\|\s*([a-zA-Z])\s*\|\s*(<|\\le(?![a-zA-Z]))\s*(\d+(?:\.\d+)?)\s*$",
        r"-\3 \2 \1 \2 \3",
        "|x| < 3",
        "-3 < x < 3",
    ),
    _rule(
        "bounds outside of an absolute value",
        "|",
        r"^\s*\|\s*([a-zA-Z])\s*\|\s*(>|\\ge(?![a-zA-Z]))\s*(\d+(?:\.\d+)?)\s*$",
        lambda m: rf"{m[1]} {TURNED[m[2]]} -{m[3]} \text{{ or }} {m[1]} {m[2]} {m[3]}",
        "|x| > 3",
        r"x < -3 \text{ or } x > 3",
    ),
    _rule("vector in angles", "<", r"^\s*<([^<>=]*,[^<>=]*)>\s*$", r"(\1)", "<1,2>", "(1,2)"),
    _rule(
        "set in plain braces",
        "{",
        r"^\s*\{(?!\s*\d{1,3}(?:,\d{3})+\s*\})([^{}\\]*,[^{}]*|\s*[a-zA-Z]\s*[|:][^{}]*)\}\s*$",
        r"\\{\1\\}",
        "{1, 2}",
        r"\{1, 2\}",
    ),
    _rule(
        "digits grouped after the point",
        ".",
        r"(?<=\d\.)(?:\d{3}(?:\s\d{3})+|\d{5}(?:\s\d{5})+)(?!\d)",
        lambda m: "".join(m.group().split()),
        "0.123 456",
        "0.123456",
    ),
    _rule(
        "ratio in words",
        "to",
        r"^\s*(\d+)\s*(?:\\text\s*\{\s*to\s*\}|to\s)\s*(\d+)\s*$",
        r"\1:\2",
        "3 to 5",
        "3:5",
    ),
    _rule("ratio", "\\colon", r"\\colon(?![a-zA-Z])", ":", r"1\colon2", "1:2"),
    _rule(
        "variants of letters",
        "\\var",
        r"\\var(?=(?:phi|epsilon|theta|rho|sigma|kappa)(?![a-zA-Z]))",
        r"\\",
        r"\varphi",
        r"\phi",
    ),
    _rule(
        "end of a proof",
        "",
        r"(?<=\S)\s{0,9}(?:\\(?:blacksquare|square|qed(?:symbol)?|Box|checkmark)(?![a-zA-Z])\s?"
        r"|[\u220e\u25a0\u25a1\u2611\u2705\u2713\u2714\U0001f300-\U0001faff]\s?){1,9}[\s.]{0,9}$",
        "",
        r"5 \quad \blacksquare",
        r"5 \quad",
    ),
    _rule(
        "modulus",
        "mod",
        r"(?:\\pmod\s*(?:\{([^{}]*)\}|(\w))"
        r"|\(\s*(?:\\text\s*\{\s*mod\s*\}|\\?b?mod(?![a-zA-Z]))\s*([^()]{1,40})\)"
        r"|\\text\s*\{\s*\(?\s*mod\s*(\w{1,20})\s*\)?\s*\})",
        lambda m: rf"\pmod{{{(m[1] or m[2] or m[3] or m[4] or '').strip()}}}",
        "x = 3 (mod 5)",
        r"x = 3 \pmod{5}",
    ),
    _rule(
        "operator names",
        "operatorname mathrm text",
        r"\\(?:operatorname\*?|mathrm|text)\s*\{\s*(" + _FUNCTIONS + r")\s*\}",
        r"\\\1 ",
        r"\operatorname{arccot}(5)",
        r"\arccot (5)",
    ),
    _rule(
        "functions as others call them",
        "tg cosec",
        r"\\(arc)?(c?tg|cosec)(?![a-zA-Z])",
        lambda m: "\\" + (m[1] or "") + {"tg": "tan", "ctg": "cot", "cosec": "csc"}[m[2]],
        r"\arctg x",
        r"\arctan x",
    ),
    _rule("base before the digits", "0b", r"^\s*0b([01]+)\s*$", r"\1_{2}", "0b1011", "1011_{2}"),
    _rule(
        "base below the line",
        "_",
        _BASE_BELOW,
        _base,
        r"52_{\text{eight}}",
        "52_{8}",
        re.IGNORECASE,
    ),
    _rule(
        "base in text",
        "base",
        r"\s*" + _TEXT + r"\(?\s*(?:in\s+)?base(?:[\s~-]*(\d+)\s*\)?\s*\}|\s*\}\s*(\d+))"
        r"|\s*\(\s*(?:in\s+)?base[\s-]+(\d+)\s*\)|(?<=\d)\s+(?:in\s+)?base[\s-]+(\d+)",
        _base,
        r"52 \text{ (base 8)}",
        "52_{8}",
        re.IGNORECASE,
    ),
    _rule(
        "another form in brackets",
        "or that i.e.",
        r"\s*(?:\\text\s*\{\s*\(\s*(?:or|i\.e\.,?|that is,?)\s*\}\s*([^(){}]{1,80}?)\s*"
        r"(?:\)|\\text\s*\{\s*\)\s*\})"
        r"|\(\s*(?:\\text\s*\{\s*(?:or|i\.e\.,?|that is,?)\s*\}|or\s|i\.e\.)\s*"
        r"([^(){}]{1,80})\))\s*$",
        lambda m: rf" \text{{ or }} {m[1] or m[2]}",
        r"\frac{3}{8} (or 0.375)",
        r"\frac{3}{8} \text{ or } 0.375",
    ),
    _rule(
        "another form in other words",
        "i.e. that is equivalently namely",
        r",?\s*(?:\\text\s*\{\s*,?\s*(?:i\.e\.,?|that is,?|(?:or,?\s*)?equivalently,?|namely,?)"
        r"\s*\}"
        r"|\bi\.e\.,?|,\s*that is,?\s|\bor,?\s+equivalently\b,?)",
        r" \\text{ or }",
        r"\frac{3}{8}, \text{ i.e. } 0.375",
        r"\frac{3}{8} \text{ or } 0.375",
    ),
    _rule(
        "approximate form",
        "approx about roughly",
        r"(?<=\S),?\s*(?:\\text\s*\{\s*,?\s*(?:or|which is)\s+"
        r"(?:approximately|approx\.?|about|roughly)\s*\}"
        r"|\b(?:or|which is)\s+(?:approximately|about|roughly)\b"
        r"|\\text\s*\{\s*\(\s*(?:approximately|approx\.?|about|roughly)\s*\}\s*([^(){}]{1,80})\)\s*$"
        r"|\\text\s*\{\s*\(\s*(?:approximately|approx\.?|about|roughly)\s([^(){}]{1,80})\)\s*\}\s*$"
        r"|\(\s*(?:\\approx|(?:approximately|about|roughly)\s)\s*([^(){}]{1,80})\)\s*$)",
        lambda m: rf" \approx {m[1] or m[2] or m[3] or ''}",
        r"2\sqrt{3} \text{ or about } 3.46",
        r"2\sqrt{3} \approx  3.46",
    ),
    _rule(
        "things counted within one text",
        "and or , &",
        r"^\s*\\text\s*\{\s*("
        + _COUNT
        + r"(?:"
        + _JOINER
        + r"\s*"
        + _COUNT
        + r"){1,5})\.?\s*\}\s*$",
        r"\1",
        r"\text{17 hens and 13 cats}",
        "17 hens and 13 cats",
    ),
    _rule(
        "things counted one after the other",
        "\\text \\mathrm \\mbox",
        r"(\\(?:text|textrm|mathrm|mbox)\s*\{[^{}]{0,79}[^{}\s,;&\\])\s{0,9}"
        + _JOINER
        + r"\s{0,9}\}(?=\s*(?:[-+.\d(]|\\(?:frac|sqrt|pi)|[a-zA-Z](?![a-zA-Z])))",
        r"\1},",
        r"17 \text{ hens and } 13",
        r"17 \text{ hens}, 13",
    ),
    _rule(
        "things counted, the second within the text of the first",
        "\\text",
        r"(\d\s*\\text\s*\{[^{}\d]{1,60}?)\s{0,9}"
        + _JOINER
        + r"\s{0,9}(\d[\d.,/]*)(\s[^{}\d]{1,60}\})",
        r"\1}, \2 \\text{\3",
        r"17 \text{ hens and 13 cats}",
        r"17 \text{ hens}, 13 \text{ cats}",
    ),
    _rule(
        "name before a colon",
        "\\text",
        r"(?:^|(?<=[,;]))\s*\\text\s*\{([a-zA-Z\s]{1,40})(?::\s*\}|\}\s*:)",
        r"\\text{\1}=",
        r"\text{hens: } 17",
        r"\text{hens}= 17",
    ),
    _rule(
        "percent in words",
        "percent pct %",
        r"\\?%|\s*\\text\s*\{\s*(?:percent|pct)\s*\}|\s*\b(?:percent(?:age)?|pct)\b",
        "%",
        r"12.5 percent",
        "12.5%",
        re.IGNORECASE,
    ),
    _rule(
        "large numbers in words",
        "hundred thousand illion",
        r"(?<=\d)\s*(?:\\text\s*\{\s*(" + _MAGNITUDE + r")s?(?:(\s[^{}]*)|\s*)\}"
        r"|(" + _MAGNITUDE + r")s?(?![a-zA-Z]))",
        lambda m: (
            rf"\times 10^{{{_MAGNITUDES[(m[1] or m[3]).lower()]}}}"
            + (rf"\text{{{m[2]}}}" if m[2] else "")
        ),
        r"1.5 \text{ million dollars}",
        r"1.5\times 10^{6}\text{ dollars}",
        re.IGNORECASE,
    ),
    _rule(
        "degrees in a function",
        "circ degree",
        r"(\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(?:\s*\^\s*(?:\{\d\}|\d))?)\s*"
        r"(?:("
        + _ANGLE
        + r")\s*"
        + _DEGREES
        + r"|\(\s*("
        + _ANGLE
        + r")\s*"
        + _DEGREES
        + r"\s*\))",
        lambda m: rf"{m[1]}(\frac{{{m[2] or m[3]}}}{{180}}\pi)",
        r"\sin 60^\circ",
        r"\sin(\frac{60}{180}\pi)",
    ),
    _rule(
        "degrees",
        "circ degree °",
        r"\s*(?:" + _DEGREES + r"(?:\s*[CF](?![a-zA-Z]))?"
        r"|\\text\s*\{\s*degrees?\s*\}|\bdegrees?(?![a-zA-Z]))",
        " ",
        r"90^{\circ}",
        "90 ",
    ),
    _rule(
        "primes",
        "prime",
        r"\^\s*(?:\{\s*(?:\\prime\s*)+\}|\\prime(?![a-zA-Z]))",
        lambda m: "'" * m.group().count("prime"),
        r"y^{\prime}",
        "y'",
    ),
    _rule(
        "infinity",
        "inf Inf INF oo",
        r"(?:\bpositive )?\\?\binfinity\b|\\infin\b|(?<![\w\\])(?:inf|oo)\b|\+\s*\\infty\b",
        r"\\infty ",
        r"[2,+\infty)",
        r"[2,\infty )",
        re.IGNORECASE,
    ),
    _rule(
        "at most, at least",
        "\\l \\g <= >=",
        r"\\(l|g)(?:eqslant|eqq|eq|e)(?![a-zA-Z])|([<>])=",
        lambda m: "\\" + (m[1] or ("l" if m[2] == "<" else "g")) + "e ",
        r"k \geqslant 2",
        r"k \ge  2",
    ),
    _rule(
        "less, greater",
        "\\lt \\gt",
        r"\\([lg])t(?![a-zA-Z])",
        lambda m: "<" if m[1] == "l" else ">",
        r"x\lt 3",
        "x< 3",
    ),
    _rule(
        "unequal", "\\n !=", r"\\(?:neq?|not\s*=)(?![a-zA-Z])|!=", r"\\neq ", r"x\ne 3", r"x\neq  3"
    ),
    _rule(
        "empty set",
        "varnothing",
        r"\\varnothing(?![a-zA-Z])",
        r"\\emptyset ",
        r"\varnothing",
        r"\emptyset ",
    ),
    _rule(
        "dots",
        "dots ... …",
        r"\\[lcd]?dots[cb]?(?![a-zA-Z])|…|\.{3,}",
        r"\\dots ",
        "1,...,5",
        r"1,\dots ,5",
    ),
    _rule(
        "digits before dots",
        "dots",
        r"(?<![\d.,])(\d{0,40})\.(\d{1,200})\s?\\dots(?![a-zA-Z])\s*(?=[%)},;]|$)",
        cut_decimal,
        r"0.333\dots",
        r"\frac{1}{3}",
    ),
    _rule(
        "recurring decimals",
        "overline bar dot widehat",
        r"(?<![\d.,])(\d{0,40})\.(\d{0,200})(?:"
        r"\\(?:overline|bar|widehat)\s*(?:\{\s*(\d{1,200})\s*\}|(\d))"
        r"|\\dot(?![a-zA-Z])\s*\{?(\d)\}?(?:(\d{0,200})\\dot(?![a-zA-Z])\s*\{?(\d)\}?)?"
        r")(?:\s*\\dots(?![a-zA-Z]))?",
        recurring_decimal,
        r"0.\dot{1}\dot{8}",
        r"\frac{2}{11}",
    ),
    _rule(
        "recurring decimals in brackets",
        "(",
        r"^(\s*-?\s*)(\d{0,40})\.(\d{0,40})\((\d{1,40})\)(?=\s*%?\s*$)",
        lambda m: m[1] + recurring(m[2], m[3], m[4], ""),
        "0.1(6)",
        r"\frac{1}{6}",
    ),
    _rule(
        "printed complex numbers",
        "j I i",
        r"(?:^|(?<=[,;(\[{]))\s*([-+]?\d+(?:\.\d*)?\s*[-+]{1,2})?\s*([-+]?\d+(?:\.\d*)?)\s?\*?\s?[jIi]"
        r"(?=\s*(?:[,;)\]}]|$))",
        lambda m: one_sign("".join(((m[1] or "") + m[2]).split())) + "i",
        "(9.0+-2.0j)",
        "(9.0-2.0i)",
    ),
    _rule(
        "equations one below the other",
        "=",
        r"\s*(?:\n|(?<!\\)\\\\(?=\s))\s*(?=[a-zA-Z](?:_\{?\w{1,9}\}?)?(?:\([a-zA-Z]\))?\s*=)",
        ", ",
        "a=1\nb=2",
        "a=1, b=2",
    ),
    _rule("bold in Markdown", "**", r"(?<![\w)}\]])\*\*|\*\*(?![\w({\\-])", "", "**B**: 5", "B: 5"),
    _rule("star for times", "*", r"\*\*", "^", "2**3", "2^3"),
    _rule("numpy", "np.", r"\bnp\.(?=[a-z])", r"\\", "np.arcsin(10/13)", r"\arcsin(10/13)"),
    _rule(
        "logarithm of a program",
        "log2 log10",
        r"(?<![a-zA-Z\\])log(2|10)(?=\s*\()|\\log(2|10)(?=\()",
        lambda m: rf"\log_{{{m[1] or m[2]}}}",
        "log2(8)",
        r"\log_{2}(8)",
    ),
    _rule(
        "function in plain text",
        "sin cos tan cot sec csc ln log exp",
        r"(?<![\\a-zA-Z])(" + _PLAIN_FUNCTIONS + r")(?=\s*[(^{\\_]|\s*\d|\s+[a-zA-Z](?![a-zA-Z]))",
        r"\\\1",
        "2sin(x)",
        r"2\sin(x)",
    ),
    _rule(
        "pi in plain text", "pi", r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi ", "3pi/4", r"3\pi /4"
    ),
    _rule(
        "short root",
        "sqrt",
        r"\\sqrt\s*(?![\s{\[a-zA-Z])([0-9]|\\[a-zA-Z]+)",
        r"\\sqrt{\1}",
        r"\sqrt2",
        r"\sqrt{2}",
    ),
    _rule(
        "short root of a degree",
        "sqrt",
        r"\\sqrt\s*(\[[^\[\]]{1,20}\])\s*([0-9a-zA-Z])",
        r"\\sqrt\1{\2}",
        r"\sqrt[3]8",
        r"\sqrt[3]{8}",
    ),
    _rule(
        "short root of a letter",
        "sqrt",
        r"\\sqrt\s+([0-9a-zA-Z])",
        r"\\sqrt{\1}",
        r"\sqrt x",
        r"\sqrt{x}",
    ),
    _rule(
        "root in plain text",
        "sqrt",
        r"(?<![\\a-zA-Z])sqrt\s*(\[[^\[\]]{1,20}\])?\s*(?:\{([^{}]*)\}|(\d+))",
        lambda m: rf"\sqrt{m[1] or ''}{{{m[2] or m[3] or ''}}}",
        "2sqrt3",
        r"2\sqrt{3}",
    ),
    _rule(
        "short fraction, two digits",
        "frac binom",
        _SHORT_FRACTION.pattern,
        _long_fraction,
        r"\frac12",
        r"\frac{1}{2}",
    ),
    _rule(
        "short fraction, first digit",
        "frac binom",
        r"\\(frac|binom)\s*([0-9a-zA-Z])\s*(?=\{)",
        r"\\\1{\2}",
        r"\frac9{\sqrt{19}}",
        r"\frac{9}{\sqrt{19}}",
    ),
    _rule(
        "power of a fraction",
        "^\\frac",
        r"\^(\\frac\{[^{}]*\}\{[^{}]*\})",
        r"^{\1}",
        r"2^\frac{1}{2}",
        r"2^{\frac{1}{2}}",
    ),
    _rule(
        "thousands with points or strokes",
        ". '",
        r"(?<![\d.,'])(?:\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:'\d{3})+)(?![\d.,'])",
        lambda m: re.sub(r"[.']", "", m.group()).replace(",", "."),
        "1.234,5",
        "1234.5",
    ),
    _rule(
        "intervals of the French",
        "] [",
        r"(?<![\w)}\]])([\[\]])([^\[\](),;<>=]{1,60})[,;]([^\[\](),;<>=]{1,60})([\[\]])"
        r"(?=\s*(?:$|[,;)]|\\cup|\\text|U\s|or\s))",
        open_brackets,
        r"]1,2] \cup [3,4[",
        r"(1,2] \cup [3,4)",
    ),
    _rule(
        "two bounds",
        "and \\land \\wedge",
        r"^\s*" + _BOUND + r"(?:\\text\s*\{\s*and\s*\}|\band\b|\\(?:land|wedge)(?![a-zA-Z]))"
        r"\s*" + _BOUND + "$",
        between,
        r"x>1 \text{ and } x \le 2",
        r"1 < x \le 2",
    ),
    _rule(
        "conditions of cases",
        "{cases}",
        r"\s{0,9}&?\s{0,9},?\s{0,9}\\text\s*\{[\s,]{0,9}(?:if|for|when)\s*\}",
        "&",
        r"\begin{cases}x & \text{if } x>0\end{cases}",
        r"\begin{cases}x& x>0\end{cases}",
    ),
    _rule(
        "thousands with space",
        "",
        r"(?<![\d.,])(?<!\d\s)[1-9]\d{0,2}(?:\s\d{3})+(?!\s?[\d/]|\.\d)",
        lambda m: "".join(m.group().split()),
        "1 000",
        "1000",
    ),
    _rule(
        "approximately",
        "approx sim doteq about roughly",
        r"^\s*(?:\\(?:approx|simeq|sim|doteq)(?![a-zA-Z])|(?:approximately|about|roughly)\s"
        r"|\\text\s*\{\s*(?:approximately|about|roughly)\s*\})",
        "",
        r"\approx 5",
        " 5",
    ),
    _rule(
        "sentence before the value",
        "\\text",
        r"^\s*\\text\s*\{[^{}]*\s(?:is|are|equals)\s*:?\s*\}",
        "",
        r"\text{The area is } 5",
        " 5",
    ),
    _rule(
        "base of one digit",
        "\\log_",
        r"\\log_(?:([2-9])(?=\d)|(10)(?!\d))",
        lambda m: rf"\log_{{{m[1] or m[2]}}}",
        r"\log_23",
        r"\log_{2}3",
    ),
    _rule(
        "decimal logarithm", "\\lg", r"\\lg(?![a-zA-Z])", r"\\log_{10}", r"\lg 2", r"\log_{10} 2"
    ),
    _rule(
        "units as a fraction",
        "frac",
        r"\\frac\s*\{\s*(" + _WORD + r")\s*\}\s*\{\s*(" + _WORD + r"(?:\^\{?\d\}?)?)\s*\}",
        r"\1/\2",
        r"5\frac{\text{m}}{\text{s}^2}",
        r"5\text{m}/\text{s}^2",
    ),
    _rule(
        "binomial as TeX",
        "choose",
        r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}",
        r"\\binom{\1}{\2}",
        r"{5 \choose 2}",
        r"\binom{5 }{ 2}",
    ),
    _rule("colour", "color", r"\\(?:text)?color\s*\{[^{}]*\}", "", r"\color{red}{5}", "{5}"),
    _rule("power in brackets", "^", r"\^\(([^(){}]*)\)", r"^{(\1)}", "x^(1/2)", "x^{(1/2)}"),
    _rule("power of several digits", "^", r"\^(\d{2,})", r"^{\1}", "10^33", "10^{33}"),
    _rule("negative power", "^-", r"\^-(\d+|[a-zA-Z])", r"^{-\1}", "10^-3", "10^{-3}"),
    _rule("set without members", "\\{", r"\\\{\s*\\\}", r"\\emptyset ", r"\{ \}", r"\emptyset "),
    _rule(
        "trailing punctuation",
        "",
        r"(?<![\s.,;:\\])[\s,;:]*(?:\.[\s,;:]*){0,2}\\*\s*$",
        "",
        "5.",
        "5",
    ),
    _rule(
        "all reals",
        "R real",
        r"^\s*(?:[a-zA-Z]\s*\\in(?![a-zA-Z])\s*)?(?:\\text\s*\{)?\s*"
        r"(?:all real(?:s| numbers)|\\mathbb\s*\{?R\}?)\s*\}?\s*$",
        r"(-\\infty,\\infty)",
        r"\mathbb{R}",
        r"(-\infty,\infty)",
        re.IGNORECASE,
    ),
    _rule(
        "all reals but some",
        "except other but",
        r"^\s*(?:\\text\s*\{\s*)?all real(?:s| numbers)?(?:\s+[a-zA-Z])?\s+"
        r"(?:except|other than|but)(?:\s+for)?\s*(?:\}\s*|\s(?=[^}]*$))([^}]+)$",
        r"\\mathbb{R}\\setminus\\{\1\\}",
        r"\text{all real numbers except } 1",
        r"\mathbb{R}\setminus\{1\}",
        re.IGNORECASE,
    ),
    _rule("equals before the value", "=", r"^\s*=\s*(?=[^\s=])", "", "= 5", "5"),
    _rule("white space", "", r"\s+", " ", "a \n b", "a b"),
)


THOUSANDS = _rule(
    "thousands",
    ",",
    r"(?<![\d.,(\[{])(?<!,\s)(\d{1,3}(?:,\d{3})+)(?![\d]|,\s?\d)",
    lambda m: m[1].replace(",", ""),
    "58,500",
    "58500",
)
"""Apart from `RULES` because ``325,950`` may be one number or a list of two; see `readings`."""
