"""Colours of section labels."""

# Okabe and Ito's palette, which readers with any colour vision can tell apart; labels that play the same part share
# a colour, as in All-In-One's figures.
COLOURS = {
    "start": "#999999",
    "end": "#999999",
    "intro": "#56B4E9",
    "outro": "#56B4E9",
    "break": "#F0E442",
    "bridge": "#F0E442",
    "inst": "#009E73",
    "solo": "#009E73",
    "verse": "#E69F00",
    "chorus": "#D55E00",
}
