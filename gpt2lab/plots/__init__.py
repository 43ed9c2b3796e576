"""Figures as SVG without torch: lines, bars, heat maps, intervals; one palette."""
