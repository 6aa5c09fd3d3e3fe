"""Tables in text, and bars in SVG."""

import html
import textwrap


def number(value):
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(rows):
    """Rows of texts as lines in columns: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if i == 0 or i == len(row) - 1 else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]


def violations(result):
    """What makes a run invalid, in words; empty when it is valid."""
    if result["valid"]:
        return ""
    found = [f"{key} {'' if value is True else value}".strip() for key, value in result["violations"].items() if value]
    return "INVALID: " + ", ".join(found)


WIDTH, LABEL, BAR, LINE = 900, 300, 480, 20


def svg(title, subtitle, sections):
    """sections: (heading, [(label, value, colour)]); each has a scale of its own, from 0."""
    out, y = [], 50
    for line in textwrap.wrap(subtitle, 130):
        out.append(f'<text x="16" y="{y}" class="s">{html.escape(line)}</text>')
        y += 16
    for heading, bars in sections:
        y += 14
        out.append(f'<text x="16" y="{y}" class="h">{html.escape(heading)}</text>')
        y += 10
        longest = max((value for _, value, _ in bars if value is not None), default=0) or 1
        for label, value, colour in bars:
            length = max(value or 0, 0) / longest * BAR
            out.append(f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>'
                       f'<rect x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{LINE - 6}" fill="{colour}"/>'
                       f'<text x="{LABEL + length + 6:.1f}" y="{y + 13}">{number(value)}</text>')
            y += LINE
        y += 12
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}">\n'
            "<style>text{font:13px sans-serif;fill:#222}.t{font-size:18px;font-weight:bold}.h{font-weight:bold}.s{fill:#666;font-size:12px}"
            '</style>\n<rect width="100%" height="100%" fill="#fff"/>\n'
            f'<text x="16" y="30" class="t">{html.escape(title)}</text>\n'
            + "\n".join(out) + "\n</svg>\n")
