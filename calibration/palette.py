"""The colours of plots: far enough apart for colour-blind people, and known to the page that shows a plot, which
puts lighter ones in their place in the dark (`unblur.export.report.inline_svg`).

M. Okabe, K. Ito: "Color Universal Design", 2008.
"""

BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
PURPLE = "#aa4499"
PALE = "#a9c4e0"
INK = "#1b1f24"
MUTED = "#5a6470"
LINE = "#d8dde3"
SERIES = (BLUE, ORANGE, GREEN, PURPLE)
